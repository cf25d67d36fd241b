#!/bin/sh
# Makes the certificates with which the services of one machine recognize each other and encrypt their traffic, below
# FOLDER/tls, and the one with which `oa admin` calls control, in FOLDER/openagents-operator. Run it again to renew them;
# services pick up the new files by themselves. The authority is made once, in FOLDER/ca.
#
#     certificates.sh FOLDER
set -eu
folder=${1:?usage: certificates.sh FOLDER}
days=${DAYS:-90}
umask 077
mkdir -p "$folder/ca" "$folder/tls"
ca=$folder/ca

# quietly COMMAND…: what it says is shown if it fails.
quietly() {
    said=$("$@" 2>&1) || {
        echo "certificates.sh: $1 failed, and no more certificates were made: $said" >&2
        exit 1
    }
}

if [ ! -e "$ca/ca.key" ]; then
    quietly openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 \
        -subj "/CN=OpenAgents services" -keyout "$ca/new.key" -out "$ca/ca.crt"
    mv "$ca/new.key" "$ca/ca.key"
fi

# issue WHO FOLDER OWNER USES NAME…: makes a new pair and puts it in place file by file. Only root can give it to OWNER.
issue() {
    who=$1 own=$2 owner=$3 uses=$4
    shift 4
    names=
    for name in "$@"; do names=${names:+$names,}DNS:$name; done
    quietly openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$who" \
        -keyout "$own/new.key" -out "$ca/new.csr"
    printf 'subjectAltName=%s\nextendedKeyUsage=%s\n' "$names" "$uses" >"$ca/new.ext"
    quietly openssl x509 -req -in "$ca/new.csr" -CA "$ca/ca.crt" -CAkey "$ca/ca.key" -CAcreateserial -days "$days" \
        -extfile "$ca/new.ext" -out "$own/new.crt"
    cp "$ca/ca.crt" "$own/new.ca"
    [ "$(id -u)" -ne 0 ] || chown "$owner" "$own"/new.*
    mv "$own/new.ca" "$own/ca.crt"
    mv "$own/new.key" "$own/tls.key"
    mv "$own/new.crt" "$own/tls.crt"
}

# service NAME ALIAS…: the pair of one service, for the user of the containers.
service() {
    own=$folder/tls/$1
    mkdir -p "$own"
    [ "$(id -u)" -ne 0 ] || chown 10001:10001 "$own"
    issue "$1" "$own" 10001:10001 serverAuth,clientAuth localhost "$@"
}

# operator: the pair of the people who run the installation, for the owner of the folder.
operator() {
    own=$folder/openagents-operator
    mkdir -p "$own"
    issue operator "$own" "$(ls -nd "$own" | awk '{print $3 ":" $4}')" clientAuth operator
}

service control control-edge
service runtime workers
service projector
service khala-gateway khala
operator
rm -f "$ca/new.csr" "$ca/new.ext"
