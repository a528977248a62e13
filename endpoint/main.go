// Command endpoint is the vCenter that the tests talk to: govmomi's simulator with a declared
// inventory, tasks that take time, delta disks, storage vMotion, and rules that delay, fail or
// lose a call. docs/vsphere-endpoint.md says what it can show and what it cannot.
//
// It builds against govmomi 0.24.2 as Debian packages it; scripts/build-vsim.sh does that.
package main

import (
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	_ "github.com/vmware/govmomi/vapi/simulator" // REST sessions and tags
)

type options struct {
	listen, inventory, user, password, cert, key, ca, dir, state string
}

func main() {
	log.SetFlags(log.LstdFlags | log.Lmicroseconds)
	var o options
	flag.StringVar(&o.listen, "l", "127.0.0.1:0", "address to listen on; port 0 takes a free one")
	flag.StringVar(&o.inventory, "inventory", "", "inventory file (JSON), required")
	flag.StringVar(&o.user, "username", "user", "the one user that may log in")
	flag.StringVar(&o.password, "password", "pass", "that user's password")
	flag.StringVar(&o.cert, "tlscert", "", "certificate file (PEM), required; made if it is not there")
	flag.StringVar(&o.key, "tlskey", "", "private key file (PEM), required")
	flag.StringVar(&o.ca, "tlsca", "", "where to write the authority of a certificate that is made")
	flag.StringVar(&o.dir, "dir", "", "where to make the folder of datastore files; the system's temporary folder if empty")
	flag.StringVar(&o.state, "state", "", "folder that keeps snapshots and places across restarts")
	flag.Parse()
	if err := serve(o); err != nil {
		log.Fatalf("endpoint: %v", err)
	}
}

// serve runs until a signal arrives or standard input closes: it never outlives its starter.
func serve(o options) error {
	inv, err := readInventory(o.inventory)
	if err != nil {
		return err
	}
	if err := ensureCertificate(o.cert, o.key, o.ca); err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(o.cert, o.key)
	if err != nil {
		return err
	}
	state := ""
	if o.state != "" {
		if state, err = filepath.Abs(o.state); err != nil {
			return err
		}
		if err := os.MkdirAll(state, 0o700); err != nil {
			return err
		}
	}
	// A folder of its own, and the working directory: places of datastores are relative to it, so
	// that their identifiers are the same at every start.
	dir, err := os.MkdirTemp(o.dir, "endpoint-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chdir(dir); err != nil {
		return err
	}
	model, guests, err := build(inv, state)
	if err != nil {
		return err
	}
	model.Service.RegisterEndpoints = true
	model.Service.Listen = &url.URL{Host: o.listen, User: url.UserPassword(o.user, o.password)}
	model.Service.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	server := model.Service.NewServer()
	server.Config.Handler = newLab(server.Config.Handler, guests)
	ready, err := json.Marshal(map[string]string{"port": server.URL.Port(), "pid": fmt.Sprint(os.Getpid())})
	if err != nil {
		return err
	}
	fmt.Println(string(ready))

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop <- syscall.SIGTERM
	}()
	<-stop
	return nil
}
