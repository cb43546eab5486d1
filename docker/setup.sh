#!/usr/bin/env bash
# Makes what the five nodes of compose.yaml start from, once: keys, certificates,
# genesis, the ledger's key, one configuration file each.
#
#   setup.sh DIR        where all of it goes: /cluster in the containers
#
# NODES (5), THRESHOLD (4), HOST_PATTERN (node%d:9000, where node number %d is
# reached), LISTEN_PATTERN (0.0.0.0:9000), DATA_PATTERN (/var/lib/quorate/%d),
# SHARED (/shared, what the nodes of one machine share), STORAGE (other lines for
# [storage] than those that keep the board in SHARED).
set -euo pipefail

dir=$1
nodes=${NODES:-5}
threshold=${THRESHOLD:-4}
here=$(cd "$(dirname "$0")" && pwd)
generate=$here/generate-certs.sh
[ -x "$generate" ] || generate=$here/../certs/generate-certs.sh

# filled PATTERN NUMBER
filled() {
    printf '%s' "${1//%d/$2}"
}

QUORATE=${QUORATE:-quorate}
export QUORATE
"$generate" --dir "$dir" --nodes "$nodes" --threshold "$threshold"
cluster_id=$("$QUORATE" --json rules show "$dir/genesis.rules" |
    sed -n 's/.*"cluster_id": *"\([0-9a-f]\{64\}\)".*/\1/p' | head -n 1)
[ -n "$cluster_id" ] || {
    echo "setup: no cluster id in $dir/genesis.rules" >&2
    exit 1
}

# The ledger's key: one secret for all nodes that submit.
if [ ! -e "$dir/chain.key" ]; then
    (umask 077 && od -An -v -tx1 -N32 /dev/urandom | tr -d ' \n' >"$dir/chain.key.new")
    mv "$dir/chain.key.new" "$dir/chain.key"
fi

for number in $(seq 1 "$nodes"); do
    id=node$number
    peers=
    for other in $(seq 1 "$nodes"); do
        [ "$other" = "$number" ] && continue
        peers="$peers${peers:+, }\"node$other@$(filled "${HOST_PATTERN:-node%d:9000}" "$other")\""
    done
    cat >"$dir/$id.toml" <<END
[node]
node_id = "$id"
listen_addr = "$(filled "${LISTEN_PATTERN:-0.0.0.0:9000}" "$number")"
advertise_addr = "$(filled "${HOST_PATTERN:-node%d:9000}" "$number")"
health_addr = "$(filled "${HEALTH_PATTERN:-0.0.0.0:8080}" "$number")"
data_dir = "$(filled "${DATA_PATTERN:-/var/lib/quorate/%d}" "$number")"

[keys]
vote_key_path = "$dir/$id-vote.key"
node_key_path = "$dir/$id-node.key"

[mtls]
ca_cert_path = "$dir/ca.crt"
clients_ca_path = "$dir/$id-clients-ca.crt"
node_cert_path = "$dir/$id.crt"
node_key_path = "$dir/$id.key"

[network]
bootstrap_peers = [$peers]

[storage]
${STORAGE:-coordinator = "embedded"}
embedded_dir = "${SHARED:-/shared}"

[consensus]
cluster_id = "$cluster_id"
rules_path = "$dir/genesis.rules"

[chain]
key_path = "$dir/chain.key"
END
done
echo "cluster id: $cluster_id"
