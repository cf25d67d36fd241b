// Serves topics "t0", "t1", … over WebSockets with Centrifuge, the library behind Centrifugo, for benchmarks.khala_peers
// and benchmarks.khala_connect.
//
// It prints "PORT PID", and then does what each line of standard input says. "keep COUNT BYTES" publishes so many events
// to t0, keeps them for clients that come back, and prints their epoch. "rounds together interval_us topics bytes"
// publishes, and prints "done". An event begins with the time at which it was published.
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

// keep publishes events that clients can recover, and returns their epoch.
func keep(node *centrifuge.Node, count, bytes int) string {
	epoch := ""
	for range count {
		published, err := node.Publish("t0", event(bytes), centrifuge.WithHistory(count, time.Hour))
		check(err)
		epoch = published.Epoch
	}
	return epoch
}

func main() {
	node, err := centrifuge.New(centrifuge.Config{})
	check(err)
	node.OnConnecting(func(_ context.Context, _ centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		return centrifuge.ConnectReply{Credentials: &centrifuge.Credentials{UserID: "u"}}, nil
	})
	node.OnConnect(func(client *centrifuge.Client) {
		client.OnSubscribe(func(asked centrifuge.SubscribeEvent, answer centrifuge.SubscribeCallback) {
			options := centrifuge.SubscribeOptions{EnableRecovery: asked.Recoverable}
			answer(centrifuge.SubscribeReply{Options: options}, nil)
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
		if numbers, found := strings.CutPrefix(lines.Text(), "keep "); found {
			var count, bytes int
			_, err := fmt.Sscan(numbers, &count, &bytes)
			check(err)
			fmt.Println(keep(node, count, bytes))
			continue
		}
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
