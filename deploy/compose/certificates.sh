#!/bin/sh
# Makes the certificates with which the services of one machine recognize each other and encrypt their traffic, below
# FOLDER/tls. Run it again to renew them; services pick up the new files by themselves. The authority is made once, in
# FOLDER/ca.
#
#     certificates.sh FOLDER
set -eu
folder=${1:?usage: certificates.sh FOLDER}
days=${DAYS:-90}
umask 077
mkdir -p "$folder/ca" "$folder/tls"
ca=$folder/ca

if [ ! -e "$ca/ca.key" ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=OpenAgents services" \
        -keyout "$ca/new.key" -out "$ca/ca.crt" 2>/dev/null
    mv "$ca/new.key" "$ca/ca.key"
fi

# issue SERVICE NAME…: makes a new pair and puts it in place file by file.
issue() {
    service=$1
    own=$folder/tls/$service
    names=DNS:localhost
    for name in "$@"; do names=$names,DNS:$name; done
    mkdir -p "$own"
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$service" \
        -keyout "$own/new.key" -out "$ca/new.csr" 2>/dev/null
    printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$names" >"$ca/new.ext"
    openssl x509 -req -in "$ca/new.csr" -CA "$ca/ca.crt" -CAkey "$ca/ca.key" -CAcreateserial -days "$days" \
        -extfile "$ca/new.ext" -out "$own/new.crt" 2>/dev/null
    cp "$ca/ca.crt" "$own/new.ca"
    # Give the files to the user of the containers; only root can do that.
    [ "$(id -u)" -ne 0 ] || chown 10001:10001 "$own" "$own"/new.*
    mv "$own/new.ca" "$own/ca.crt"
    mv "$own/new.key" "$own/tls.key"
    mv "$own/new.crt" "$own/tls.crt"
}

issue control control-edge
issue runtime workers
issue projector
issue khala-gateway khala
rm -f "$ca/new.csr" "$ca/new.ext"
