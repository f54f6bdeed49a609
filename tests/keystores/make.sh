#!/bin/sh
# Makes the keystores of this folder anew, as the push server's guide does it, with Java's keytool 17:
# an authority, a certificate of it, and its chain in a keystore; the same in the formats of older Javas.
# They are good for a hundred years and for tests only: the password is `changeit`.
set -eu
cd "$(dirname "$0")"
rm -f ca.p12 push.keystore push.jks push-java8.keystore two-names.keystore two-kinds.keystore \
  renewed.keystore rivals.keystore
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
# Several keys in one keystore: for two names, of two kinds, an expired one beside its successor, and two
# between which only the operator can choose.
run -genkeypair -keystore two-names.keystore -alias aaa -keyalg EC -groupname secp256r1 -dname "CN=other.mycompany.com" -ext san=dns:other.mycompany.com -validity 36500
run -genkeypair -keystore two-names.keystore -alias push -keyalg EC -groupname secp256r1 -dname "CN=push.mycompany.com" -ext san=dns:push.mycompany.com -validity 36500
run -genkeypair -keystore two-kinds.keystore -alias ec -keyalg EC -groupname secp256r1 -dname "CN=push.mycompany.com" -ext san=dns:push.mycompany.com -validity 36500
run -genkeypair -keystore two-kinds.keystore -alias rsa -keyalg RSA -keysize 2048 -dname "CN=push.mycompany.com" -ext san=dns:push.mycompany.com -validity 36500
run -genkeypair -keystore renewed.keystore -alias push2025 -keyalg EC -groupname secp256r1 -dname "CN=push.mycompany.com" -ext san=dns:push.mycompany.com -startdate "2025/01/01 00:00:00" -validity 90
run -genkeypair -keystore renewed.keystore -alias push2026 -keyalg EC -groupname secp256r1 -dname "CN=push.mycompany.com" -ext san=dns:push.mycompany.com -validity 36500
run -importkeystore -srckeystore renewed.keystore -srcstorepass changeit -srcalias push2026 -destkeystore rivals.keystore -deststoretype PKCS12 -deststorepass changeit
run -genkeypair -keystore rivals.keystore -alias push2027 -keyalg EC -groupname secp256r1 -dname "CN=push.mycompany.com" -ext san=dns:push.mycompany.com -validity 36500
