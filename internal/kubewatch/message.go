package kubewatch

import (
	"bytes"
	"errors"
	"slices"

	"github.com/google/uuid"
	"google.golang.org/protobuf/encoding/protowire"
)

// errMessage tells that an answer is not what the API's protobuf form is.
var errMessage = errors.New("the answer of the API server is not the protobuf that was asked for")

// each calls f with the fields of a message that are bytes, texts or messages, where
// they stand.
func each(message []byte, f func(field protowire.Number, value []byte)) error {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return errMessage
		}
		message = message[n:]
		if kind == protowire.BytesType {
			value, n := protowire.ConsumeBytes(message)
			if n < 0 {
				return errMessage
			}
			f(number, value)
			message = message[n:]
			continue
		}
		if n = protowire.ConsumeFieldValue(number, kind, message); n < 0 {
			return errMessage
		}
		message = message[n:]
	}
	return nil
}

// at returns the bytes, text or message at a path of fields; nil: it is not there.
func at(message []byte, path ...protowire.Number) ([]byte, error) {
	for _, field := range path {
		var found []byte
		if err := each(message, func(n protowire.Number, value []byte) {
			if n == field {
				found = value
			}
		}); err != nil {
			return nil, err
		}
		if found == nil {
			return nil, nil
		}
		message = found
	}
	return message, nil
}

// number returns a field that is a number; 0: it is not there.
func number(message []byte, field protowire.Number) uint64 {
	for len(message) > 0 {
		n, kind, size := protowire.ConsumeTag(message)
		if size < 0 {
			return 0
		}
		message = message[size:]
		if n == field && kind == protowire.VarintType {
			v, size := protowire.ConsumeVarint(message)
			if size < 0 {
				return 0
			}
			return v
		}
		if size = protowire.ConsumeFieldValue(n, kind, message); size < 0 {
			return 0
		}
		message = message[size:]
	}
	return 0
}

// prefix begins every object in the API's protobuf form
// (apimachinery/pkg/runtime/serializer/protobuf).
var prefix = []byte("k8s\x00")

// unwrap returns the message in runtime.Unknown.
func unwrap(object []byte) ([]byte, error) {
	rest, ok := bytes.CutPrefix(object, prefix)
	if !ok {
		return nil, errMessage
	}
	return at(rest, 2)
}

// Fields of the messages that are read, from generated.proto of k8s.io/api,
// k8s.io/apimachinery, k8s.io/apiextensions-apiserver and k8s.io/kube-aggregator. They
// are a part of the API's promise of compatibility.
const (
	fieldMetadata = 1 // of every object and list
	fieldItems    = 2 // of every list

	metaName, metaNamespace, metaUID, metaVersion = 1, 3, 5, 6

	listVersion, listContinue = 2, 3

	statusMessage, statusCode = 3, 6

	eventType, eventObject = 1, 2
)

// item is one object: its name and its message, where it stands.
type item struct {
	namespace, name, version string
	uid                      uuid.UUID // zero: it is none
	message                  []byte
}

func newItem(message []byte) (item, error) {
	i := item{message: message}
	meta, err := at(message, fieldMetadata)
	if err != nil {
		return i, err
	}
	err = each(meta, func(n protowire.Number, value []byte) {
		switch n {
		case metaName:
			i.name = string(value)
		case metaNamespace:
			i.namespace = string(value)
		case metaUID:
			i.uid, _ = uuid.ParseBytes(value) // a stranger's stays zero
		case metaVersion:
			i.version = string(value)
		}
	})
	return i, err
}

// values are the values in an object that may hold certificates, with the field where
// each stands, as a [trust.Place] has it.
type values func(message []byte, f func(field string, value []byte)) error

// dataOf are values of the maps of a Secret or ConfigMap whose keys are wanted.
func dataOf(wanted func(key string) bool, maps ...protowire.Number) values {
	return func(message []byte, f func(string, []byte)) error {
		var first error
		err := each(message, func(n protowire.Number, entry []byte) {
			if !slices.Contains(maps, n) || first != nil {
				return
			}
			key, err := at(entry, 1)
			if err != nil {
				first = err
				return
			}
			if !wanted(string(key)) {
				return
			}
			value, err := at(entry, 2)
			if err != nil {
				first = err
				return
			}
			f("data["+string(key)+"]", value)
		})
		return errors.Join(err, first)
	}
}

// webhooks are the caBundles of admission webhooks.
func webhooks(message []byte, f func(string, []byte)) error {
	var first error
	err := each(message, func(n protowire.Number, webhook []byte) {
		if n != 2 || first != nil {
			return
		}
		name, err := at(webhook, 1)
		bundle, err2 := at(webhook, 2, 2) // clientConfig.caBundle
		if first = errors.Join(err, err2); first == nil && bundle != nil {
			f("webhooks["+string(name)+"].clientConfig.caBundle", bundle)
		}
	})
	return errors.Join(err, first)
}

// caBundle is the one at a path of an object.
func caBundle(field string, path ...protowire.Number) values {
	return func(message []byte, f func(string, []byte)) error {
		bundle, err := at(message, path...)
		if err == nil && bundle != nil {
			f(field, bundle)
		}
		return err
	}
}
