#!/bin/sh
# Calls the gateway with a signature and prints the response:
#
#     ./call.sh KEY SECRET URL [BODY]
#
# TIME and NONCE from the environment replace the clock and a random number; FROM is the address to call for.
set -eu

key=$1 secret=$2 url=$3 body=${4-}
method=GET
[ -z "$body" ] || method=POST
address=/$(printf %s "$url" | cut -d/ -f4-)
time=${TIME-$(date +%s)}
nonce=${NONCE-$(openssl rand -hex 12)}
digest=$(printf %s "$body" | openssl dgst -sha256 -r | cut -d' ' -f1)
sign=$(printf '%s\n%s\n%s\n%s\n%s' "$method" "$address" "$time" "$nonce" "$digest" |
    openssl dgst -sha1 -hmac "$secret" -binary | base64)

set -- -sS -i -X "$method" -H "X-Key: $key" -H "X-Time: $time" -H "X-Nonce: $nonce" -H "X-Sign: $sign"
[ -z "$body" ] || set -- "$@" -H "Content-Type: application/json" --data-binary "$body"
[ -z "${FROM-}" ] || set -- "$@" -H "X-Forwarded-For: $FROM"
exec curl "$@" "$url"
