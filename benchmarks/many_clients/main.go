// Opens many connections at once and discards what they get: see __init__.py, which starts it.
//
// Its arguments are the port, a file, how many connections wait for their first answer at a time, how many seconds pass
// between two pings (0: none), and how many bytes each connection gets in the end. The lines of the file are base64:
// what each connection says first, its ping, and then, for each connection, what it says once it has been answered.
// It prints "ready", and begins when a line comes. "all" is printed when each has got as many bytes after that.
package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"time"
)

const longestLine = 1 << 20

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func number(text string) int {
	value, err := strconv.Atoi(text)
	check(err)
	return value
}

// linesOf reads a file of lines in base64.
func linesOf(path string) (lines [][]byte) {
	file, err := os.Open(path)
	check(err)
	defer file.Close()
	scanner := bufio.NewScanner(file)
	scanner.Buffer(nil, longestLine)
	for scanner.Scan() {
		line, err := base64.StdEncoding.DecodeString(scanner.Text())
		check(err)
		lines = append(lines, line)
	}
	check(scanner.Err())
	return lines
}

func main() {
	address := net.JoinHostPort("127.0.0.1", os.Args[1])
	lines := linesOf(os.Args[2])
	pingEvery := time.Duration(number(os.Args[4])) * time.Second
	expected := number(os.Args[5])
	first, ping, says := lines[0], lines[1], lines[2:]

	fmt.Println("ready")
	_, err := bufio.NewReader(os.Stdin).ReadString('\n')
	check(err)
	waiting := make(chan struct{}, number(os.Args[3]))
	var complete sync.WaitGroup
	complete.Add(len(says))
	for _, text := range says {
		waiting <- struct{}{}
		go func() {
			connection := open(address, first)
			<-waiting
			_, err := connection.Write(text)
			check(err)
			if pingEvery > 0 {
				go repeat(connection, ping, pingEvery)
			}
			discard(connection, expected, complete.Done)
		}()
	}
	complete.Wait()
	fmt.Println("all")
	select {} // until this process is killed
}

// open connects, and waits for the answer to what is said first.
func open(address string, first []byte) net.Conn {
	connection, err := net.Dial("tcp", address)
	check(err)
	_, err = connection.Write(first)
	check(err)
	answer, size := make([]byte, 4096), 0
	for !bytes.Contains(answer[:size], []byte("\r\n\r\n")) {
		read, err := connection.Read(answer[size:])
		check(err)
		size += read
	}
	return connection
}

func repeat(connection net.Conn, text []byte, every time.Duration) {
	for range time.Tick(every) {
		_, err := connection.Write(text)
		check(err)
	}
}

// discard reads for ever. It says when so many bytes have come; no server here ends a connection.
func discard(connection net.Conn, expected int, complete func()) {
	buffer := make([]byte, 16*1024)
	for missing := expected; ; {
		read, err := connection.Read(buffer)
		if err != nil {
			fmt.Fprintf(os.Stderr, "a client's connection has ended: %v %q\n", err, buffer[:read])
			return
		}
		if missing > 0 && missing <= read {
			complete()
		}
		missing -= read
	}
}
