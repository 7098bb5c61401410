// Goroutines on several threads, preempted by signals, with timers and a child process.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

var counted int64

//go:noinline
func Hit(i int) int {
	atomic.AddInt64(&counted, 1)
	return i ^ 1
}

func main() {
	runtime.GOMAXPROCS(4)
	signals := make(chan os.Signal, 10)
	signal.Notify(signals, syscall.SIGUSR1)
	var group sync.WaitGroup
	sums := make(chan int, 64)
	for g := 0; g < 64; g++ {
		group.Add(1)
		go func(g int) {
			defer group.Done()
			sum := 0
			for i := 0; i < 200; i++ {
				sum += Hit(i * g)
				if i%50 == 0 {
					time.Sleep(time.Millisecond)
				}
				s := make([]byte, 10000)
				sum += len(s)
			}
			sums <- sum
		}(g)
	}
	group.Wait()
	total := 0
	for g := 0; g < 64; g++ {
		total += <-sums
	}
	syscall.Kill(os.Getpid(), syscall.SIGUSR1)
	fmt.Println("signal", <-signals)
	out, err := exec.Command("/bin/echo", "child").Output()
	fmt.Printf("%s%v\n", out, err)
	func() {
		defer func() { fmt.Println("recovered:", recover()) }()
		var p *int
		fmt.Println(*p)
	}()
	fmt.Println(total, counted)
	os.Exit(8)
}
