// A web server with nothing but Go's standard library.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "Hello from Go on %s\n", os.Getenv("DYNO"))
	})
	server := &http.Server{Addr: ":" + os.Getenv("PORT"), ReadHeaderTimeout: 10 * time.Second}

	// The platform sends SIGTERM before it stops a dyno: requests under way are answered first.
	stopping, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	stopped := make(chan struct{})
	go func() {
		<-stopping.Done()
		if err := server.Shutdown(context.Background()); err != nil {
			log.Print(err)
		}
		close(stopped)
	}()

	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		log.Fatal(err)
	}
	<-stopped
}
