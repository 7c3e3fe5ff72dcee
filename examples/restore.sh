#!/bin/sh
# Restores one stripe of a backup without vdstream. It needs sh, python3, zstd and b3sum; age, if the backup is encrypted; aws, for s3://.
# Without b3sum it stops, unless UNCHECKED=1: zstd checks each frame, but an object in the place of another would go unseen.
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
if ! command -v b3sum >/dev/null; then
    [ "${UNCHECKED-}" = 1 ] || fail "b3sum is missing: install it, or set UNCHECKED=1 if swapped objects may go unseen"
    echo "restore.sh: WARNING: no hash is checked, so an object in the place of another goes unseen" >&2
    b3sum() { echo "$hash"; }
fi
work=$(mktemp -d "$output.partial-XXXXXX")
trap 'rm -rf "$work"' EXIT; trap 'exit 1' INT TERM

get manifest.json "$work/manifest"
python3 - "$work/manifest" "$stripe" >"$work/segments" <<'PLAN'
import json, sys
manifest = json.load(open(sys.argv[1]))
assert manifest["format"] == "vdstream-manifest" and manifest["version"] == 1, "unknown format"
stripe = manifest["stripes"][int(sys.argv[2])]
print("total", stripe["raw_bytes"], "-")
for segment in stripe["segments"]: print(segment["object"], segment["stored_bytes"], segment["stored_hash"])
PLAN

# identity.age lies beside the manifest.
[ "$*" != "-i identity.age" ] || { get identity.age "$work/identity.age"; set -- -i "$work/identity.age"; }
: >"$work/raw"
while read -r object bytes hash <&3; do
    [ "$object" != total ] || { total=$bytes; continue; }
    get "$object" "$work/object"
    [ "$(wc -c <"$work/object")" -eq "$bytes" ] || fail "$object does not have $bytes bytes"
    [ "$(b3sum --no-names "$work/object")" = "$hash" ] || fail "$object does not have the hash $hash"
    case $object in
    *.age) age -d "$@" -o "$work/segment" "$work/object" || fail "cannot decrypt $object" ;;
    *) mv "$work/object" "$work/segment" ;;
    esac
    zstd -d -c -q "$work/segment" >>"$work/raw" || fail "$object is damaged"
done 3<"$work/segments"
[ "$(wc -c <"$work/raw")" -eq "$total" ] || fail "the stripe does not have $total bytes"
mv "$work/raw" "$output"
