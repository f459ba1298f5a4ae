"""A gRPC client and a gRPC server of grpc's C core, for the health service.

health.py call ADDRESS CA [CERTIFICATE KEY]    prints "CODE ANSWER DETAILS"
health.py serve CA CERTIFICATE KEY             prints its port, serves until stdin ends
"""
import sys
from concurrent import futures

import grpc

CHECK = "/grpc.health.v1.Health/Check"
SERVING = b"\x08\x01"  # grpc.health.v1.HealthCheckResponse{status: SERVING}


def read(path):
    with open(path, "rb") as file:
        return file.read()


def call(address, ca, certificate=None, key=None):
    credentials = grpc.ssl_channel_credentials(read(ca), key and read(key), certificate and read(certificate))
    with grpc.secure_channel(address, credentials) as channel:
        try:
            answer = channel.unary_unary(CHECK)(b"", timeout=20)
            print("OK", answer.hex())
        except grpc.RpcError as error:
            print(error.code().name, "-", error.details())


class Health(grpc.GenericRpcHandler):
    def service(self, details):
        if details.method != CHECK:
            return None
        return grpc.unary_unary_rpc_method_handler(lambda request, context: SERVING)


def serve(ca, certificate, key):
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((Health(),))
    port = server.add_secure_port(
        "127.0.0.1:0", grpc.ssl_server_credentials([(read(key), read(certificate))], read(ca), require_client_auth=True)
    )
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(0)


{"call": call, "serve": serve}[sys.argv[1]](*sys.argv[2:])
