#!/bin/sh
# Makes the keystores of this folder anew, as the push server's guide does it, with Java's keytool 17:
# an authority, a certificate of it, and its chain in a keystore; the same in the formats of older Javas.
# They are good for a hundred years and for tests only: the password is `changeit`.
set -eu
cd "$(dirname "$0")"
rm -f ca.p12 push.keystore push.jks push-java8.keystore
run() { keytool "$@" -storepass changeit -noprompt 2>/dev/null; }
run -genkeypair -keystore ca.p12 -alias ca -keyalg EC -groupname secp256r1 -dname "CN=Keystore test authority" -ext bc:c -validity 36500
run -genkeypair -keystore push.keystore -alias push -keyalg EC -groupname secp256r1 -dname "CN=push.mycompany.com" -validity 36500
run -certreq -keystore push.keystore -alias push -file push.csr
run -gencert -keystore ca.p12 -alias ca -infile push.csr -outfile push.crt -ext san=dns:push.mycompany.com,dns:*.push.mycompany.com -validity 36500 -rfc
run -exportcert -keystore ca.p12 -alias ca -file ca.crt -rfc
run -importcert -keystore push.keystore -alias ca -file ca.crt
run -importcert -keystore push.keystore -alias push -file push.crt
run -importkeystore -srckeystore push.keystore -srcstorepass changeit -destkeystore push.jks -deststoretype JKS -deststorepass changeit
run -J-Dkeystore.pkcs12.legacy -importkeystore -srckeystore push.keystore -srcstorepass changeit -destkeystore push-java8.keystore -deststoretype PKCS12 -deststorepass changeit
rm -f push.csr push.crt ca.crt ca.p12
