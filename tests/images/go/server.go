// A server that names its replica. SIGTERM ends it when the requests that it has are answered; SIGHUP makes it open its
// listener again, which leaves 300 ms in which nothing listens.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"
)

var replica = setting("REPLICA", "?")

func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func listen(server *http.Server) net.Listener {
	listener, err := net.Listen("tcp", server.Addr)
	if err != nil {
		log.Fatal(err)
	}
	// An error here is that the listener was closed, by this program.
	go server.Serve(listener)
	return listener
}

func main() {
	started := time.Now()
	readyAfter, err := strconv.ParseFloat(setting("READY_AFTER", "0"), 64)
	if err != nil {
		log.Fatal("READY_AFTER: ", err)
	}
	answer := func(path string, answer http.HandlerFunc) {
		http.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Replica", replica)
			answer(w, r)
		})
	}
	answer("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "replica %s\n", replica) })
	answer("/slow", func(w http.ResponseWriter, r *http.Request) {
		ms, _ := strconv.Atoi(r.FormValue("ms"))
		time.Sleep(time.Duration(ms) * time.Millisecond)
		fmt.Fprintf(w, "replica %s, after %d ms\n", replica, ms)
	})
	// One request at a time, as a worker process does it; the replica of that name takes ten times as long.
	var worker sync.Mutex
	answer("/work", func(w http.ResponseWriter, r *http.Request) {
		us, _ := strconv.Atoi(r.FormValue("us"))
		if r.FormValue("slow") == replica {
			us *= 10
		}
		worker.Lock()
		time.Sleep(time.Duration(us) * time.Microsecond)
		worker.Unlock()
		fmt.Fprintf(w, "replica %s, after %d µs\n", replica, us)
	})
	answer("/hold", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "replica %s holds\n", replica)
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
		case <-time.After(time.Minute):
		}
	})
	answer("/healthz", func(w http.ResponseWriter, r *http.Request) {
		if time.Since(started).Seconds() < readyAfter {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})

	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	server := &http.Server{Addr: setting("ADDRESS", ":8080")}
	listener := listen(server)
	for signal := range signals {
		if signal != syscall.SIGHUP {
			break
		}
		listener.Close()
		time.Sleep(300 * time.Millisecond)
		listener = listen(server)
	}
	server.Shutdown(context.Background())
}
