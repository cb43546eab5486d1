// The etcd server, as its own main does it: go.etcd.io/etcd/server/v3's main cannot
// be built by `go install`, since its go.mod replaces modules.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
