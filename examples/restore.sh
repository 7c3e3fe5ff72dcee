#!/bin/sh
# Restores one stripe of a backup without vdstream. It needs sh, python3 and zstd; age, if the backup is encrypted; aws, for s3://.
# Where b3sum is installed, the hash of every object is checked too; zstd checks each frame in any case.
#
#   restore.sh BACKUP STRIPE OUTPUT [-i IDENTITY]
#   restore.sh s3://bucket/prod/orders/019ab6d1-… 0 orders.tar -i key.txt
#   restore.sh /srv/backups/orders/019ab6d1-… 0 orders.tar -i identity.age     with the passphrase of the backup
#
# BACKUP holds manifest.json; without one there is no backup. OUTPUT must not exist, and appears only when everything was right.
set -eu

[ $# -ge 3 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
backup=${1%/} stripe=$2 output=$3
shift 3

fail() { echo "restore.sh: $*" >&2; exit 1; }

# get OBJECT FILE
get() {
    case $backup in
    s3://*) aws s3 cp --quiet "$backup/$1" "$2" ;;
    *) cp "${backup#file://}/$1" "$2" ;;
    esac || fail "cannot read $1"
}

[ ! -e "$output" ] || fail "$output exists already"
work=$(mktemp -d "$output.partial-XXXXXX")
trap 'rm -rf "$work"' EXIT; trap 'exit 1' INT TERM

get manifest.json "$work/manifest"
python3 - "$work/manifest" "$stripe" >"$work/segments" <<'PLAN'
import json, sys
manifest = json.load(open(sys.argv[1]))
assert manifest["format"] == "vdstream-manifest" and manifest["version"] == 1, "unknown format"
stripe = manifest["stripes"][int(sys.argv[2])]
print("total", stripe["raw_bytes"], "-")
for segment in stripe["segments"]:
    print(segment["object"], segment["stored_bytes"], segment["stored_hash"])
PLAN

# identity.age lies beside the manifest.
[ "$*" != "-i identity.age" ] || { get identity.age "$work/identity.age"; set -- -i "$work/identity.age"; }

: >"$work/raw"
while read -r object bytes hash <&3; do
    [ "$object" != total ] || { total=$bytes; continue; }
    get "$object" "$work/object"
    [ "$(wc -c <"$work/object")" -eq "$bytes" ] || fail "$object does not have $bytes bytes"
    if command -v b3sum >/dev/null; then
        [ "$(b3sum --no-names "$work/object")" = "$hash" ] || fail "$object does not have the hash $hash"
    fi
    case $object in
    *.age) age -d "$@" -o "$work/segment" "$work/object" || fail "cannot decrypt $object" ;;
    *) mv "$work/object" "$work/segment" ;;
    esac
    zstd -d -c -q "$work/segment" >>"$work/raw" || fail "$object is damaged"
done 3<"$work/segments"

[ "$(wc -c <"$work/raw")" -eq "$total" ] || fail "the stripe does not have $total bytes"
mv "$work/raw" "$output"
