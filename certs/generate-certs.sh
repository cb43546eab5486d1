#!/usr/bin/env bash
# Makes the keys and certificates of a whole cluster in one place, for a first look
# and for tests: certs/ca.crt, certs/ca.key, certs/node1.crt, certs/node1.key and so
# on (certs/README.md names them all). Calls `quorate certs`, which does the work.
#
#   certs/generate-certs.sh [--cluster NAME] [--nodes N] [--threshold T]
#                           [--dir DIR] [--san HOST]...
#
# Real trustees do not do this: each makes its own keys on its own machine, see
# certs/README.md. What is there already is kept, so a second run changes nothing.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
cluster=quorate
nodes=5
threshold=
dir=$root/certs
sans=()

usage() {
    sed -n '6,7s/^# \{0,1\}//p' "$0"
    cat <<END
  --cluster NAME   the cluster's name, a-z 0-9 -     [quorate]
  --nodes N        trustees, named node1, node2 ...  [5]
  --threshold T    votes that decide                 [two thirds of N, rounded up]
  --dir DIR        where the files go                [certs]
  --san HOST       another name or address of every node; may be repeated
The binary is \$QUORATE, else target/debug/quorate, else \`quorate\` on the PATH.
END
}

die() {
    printf 'generate-certs: %s\n' "$*" >&2
    exit 2
}

while [ $# -gt 0 ]; do
    case $1 in
    -h | --help)
        usage
        exit 0
        ;;
    --cluster | --nodes | --threshold | --dir | --san)
        [ $# -ge 2 ] || die "$1 needs a value"
        case $1 in
        --cluster) cluster=$2 ;;
        --nodes) nodes=$2 ;;
        --threshold) threshold=$2 ;;
        --dir) dir=$2 ;;
        --san) sans+=(--san "$2") ;;
        esac
        shift 2
        ;;
    *) die "unknown option $1 (--help lists them)" ;;
    esac
done
[[ $nodes =~ ^[1-9][0-9]*$ ]] || die "--nodes must be a number from 1 on, not '$nodes'"
threshold=${threshold:-$(((2 * nodes + 2) / 3))}

if [ -n "${QUORATE:-}" ]; then
    quorate=$QUORATE
elif [ -x "$root/target/debug/quorate" ]; then
    quorate=$root/target/debug/quorate
else
    quorate=$(command -v quorate) || die "there is no binary yet: run 'make build' first, or set QUORATE"
fi

# once FILE COMMAND...: runs the command unless the file it makes is there.
once() {
    local file=$1
    shift
    if [ -e "$file" ]; then
        return
    fi
    "$@" >/dev/null
    printf 'made %s\n' "$file"
}

once "$dir/ca.crt" "$quorate" certs init --cluster "$cluster" --dir "$dir"
members=()
for number in $(seq 1 "$nodes"); do
    id=node$number
    once "$dir/$id.csr" "$quorate" certs request --cluster "$cluster" --node-id "$id" --dir "$dir" ${sans[@]+"${sans[@]}"}
    once "$dir/$id.crt" "$quorate" certs sign --node-id "$id" --dir "$dir" ${sans[@]+"${sans[@]}"}
    once "$dir/$id-client.crt" "$quorate" certs issue --node-id "$id" --name "$id-client" --dir "$dir"
    once "$dir/$id-operator.crt" "$quorate" certs issue --node-id "$id" --name "$id-operator" --role operator --dir "$dir"
    members+=("$dir/$id.member")
done
once "$dir/genesis.rules" "$quorate" rules init --cluster "$cluster" --threshold "$threshold" \
    --members "${members[@]}" --output "$dir/genesis.rules"

"$quorate" rules show "$dir/genesis.rules"
