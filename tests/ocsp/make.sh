#!/bin/sh
# Makes the files of this folder anew: a certificate with its authority, and an OCSP response that is
# good for one minute, and over ever after. They are for tests only; the certificate is good for a hundred years.
set -eu
cd "$(dirname "$0")"
key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }
key ca.key
key over.key
openssl req -x509 -key ca.key -subj "/CN=OCSP test authority" -days 36500 -out ca.pem
openssl req -new -key over.key -subj "/CN=a.example" -addext "subjectAltName=DNS:a.example" -out over.csr
openssl x509 -req -in over.csr -CA ca.pem -CAkey ca.key -copy_extensions copy -days 36500 -out leaf.pem
serial=$(openssl x509 -in leaf.pem -noout -serial | cut -d= -f2)
printf 'V\t21000101000000Z\t\t%s\tunknown\t/CN=a.example\n' "$serial" > index
openssl ocsp -issuer ca.pem -cert leaf.pem -reqout request
openssl ocsp -index index -CA ca.pem -rsigner ca.pem -rkey ca.key -nmin 1 -reqin request -respout over.der
cat leaf.pem ca.pem > over.pem
rm -f ca.key over.key ca.pem leaf.pem over.csr index request ca.srl
