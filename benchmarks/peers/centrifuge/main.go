// Serves topics "t0", "t1", … over WebSockets with Centrifuge, the library behind Centrifugo, for benchmarks.khala_peers.
//
// It prints "PORT PID", and then publishes what each line of standard input says: "rounds together interval_us topics
// bytes". An event begins with the time at which it was published. "done" follows.
package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/centrifugal/centrifuge"
	"golang.org/x/sys/unix"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// event is a JSON string of so many bytes that holds the time of CLOCK_MONOTONIC, as the readers measure it.
func event(bytes int) []byte {
	var now unix.Timespec
	check(unix.ClockGettime(unix.CLOCK_MONOTONIC, &now))
	text := fmt.Sprintf("@@%019d", now.Nano())
	return []byte(`"` + text + strings.Repeat("x", bytes-len(text)) + `"`)
}

func main() {
	node, err := centrifuge.New(centrifuge.Config{})
	check(err)
	node.OnConnecting(func(_ context.Context, _ centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		return centrifuge.ConnectReply{Credentials: &centrifuge.Credentials{UserID: "u"}}, nil
	})
	node.OnConnect(func(client *centrifuge.Client) {
		client.OnSubscribe(func(_ centrifuge.SubscribeEvent, answer centrifuge.SubscribeCallback) {
			answer(centrifuge.SubscribeReply{}, nil)
		})
	})
	check(node.Run())
	everybody := func(*http.Request) bool { return true }
	handler := centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{CheckOrigin: everybody})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	go func() { check(http.Serve(listener, handler)) }()
	fmt.Println(listener.Addr().(*net.TCPAddr).Port, os.Getpid())
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var rounds, together, intervalUs, topics, bytes int
		_, err := fmt.Sscan(lines.Text(), &rounds, &together, &intervalUs, &topics, &bytes)
		check(err)
		due := time.Now()
		for round := range rounds {
			time.Sleep(time.Until(due))
			due = due.Add(time.Duration(intervalUs) * time.Microsecond)
			for range together {
				_, err := node.Publish(fmt.Sprintf("t%d", round%topics), event(bytes))
				check(err)
			}
		}
		fmt.Println("done")
	}
}
