#!/usr/bin/env bash
# Installs what the tests need of the system and is not there, from Debian, and as root
# raises a limit of the kernel that several labs at once reach.
set -euo pipefail
# A kubelet takes a dozen inotify instances, and the kernel counts those of all labs
# together, by user: its 128 end as "too many open files" where several run at once.
instances=/proc/sys/fs/inotify/max_user_instances
if [ "$(cat $instances)" -lt 1024 ] && ! { echo 1024 >$instances; } 2>/dev/null; then
	echo "labs beside each other want 1024 inotify instances: sysctl fs.inotify.max_user_instances=1024, or KUBEPKI_LAB_PROCESSES=1" >&2
fi
missing=()
for pair in openssl:openssl curl:curl gcc:gcc nft:nftables softhsm2-util:softhsm2 ssh-keyscan:openssh-client promtool:prometheus dbus-daemon:dbus-daemon systemd-analyze:systemd pebble:pebble; do
	command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
# Debian has it where an ordinary user's PATH does not look.
[ -x /usr/sbin/sshd ] || missing+=(openssh-server)
# Debian's Python alone has Debian's libraries, whichever comes first in PATH.
/usr/bin/python3 -c 'import grpc' 2>/dev/null || missing+=(python3-grpcio)
/usr/bin/python3 -c 'import icalendar' 2>/dev/null || missing+=(python3-icalendar)
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
	echo "tests need: ${missing[*]}: install them and run again" >&2
	exit 1
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}"
