// Goroutines on several threads, preempted by signals, with timers, files, pipes and a child process.
// goroutines attached: files and pipes until standard input ends; a debugger comes and goes meanwhile.
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

// Bytes through a file and a pipe in whose reads threads wait, while others only compute and have to
// be preempted: how many came back as they were.
func transfer() int64 {
	var same, spun int64
	var done int32
	var spinning, group sync.WaitGroup
	for s := 0; s < 2; s++ {
		spinning.Add(1)
		go func() {
			defer spinning.Done()
			for atomic.LoadInt32(&done) == 0 {
				spun++
			}
		}()
	}
	for g := 0; g < 8; g++ {
		file, err := os.CreateTemp("", "goroutines")
		if err != nil {
			panic(err)
		}
		os.Remove(file.Name())
		var ends [2]int
		if err := syscall.Pipe(ends[:]); err != nil {
			panic(err)
		}
		defer file.Close()
		defer syscall.Close(ends[0])
		defer syscall.Close(ends[1])
		group.Add(2)
		go func() {
			defer group.Done()
			for i := 0; i < 1000; i++ {
				file.WriteAt([]byte{byte(i), byte(i >> 8)}, int64(2*i))
				syscall.Write(ends[1], []byte{byte(i)})
			}
		}()
		go func() {
			defer group.Done()
			from_pipe, from_file := make([]byte, 1), make([]byte, 2)
			for i := 0; i < 1000; i++ {
				n, err := syscall.Read(ends[0], from_pipe)
				m, _ := file.ReadAt(from_file, int64(2*i))
				if err == nil && n == 1 && m == 2 && from_pipe[0] == byte(i) && from_file[0] == byte(i) && from_file[1] == byte(i>>8) {
					atomic.AddInt64(&same, 1)
				}
			}
		}()
	}
	group.Wait()
	atomic.StoreInt32(&done, 1)
	spinning.Wait()
	return same
}

func transfer_until_end() {
	fmt.Println("started")
	ends := make(chan bool)
	go func() {
		os.Stdin.Read(make([]byte, 1))
		close(ends)
	}()
	for {
		if n := transfer(); n != 8000 {
			fmt.Println("transferred", n)
		}
		select {
		case <-ends:
			fmt.Println("ended")
			return
		default:
		}
	}
}

func main() {
	runtime.GOMAXPROCS(4)
	if len(os.Args) > 1 {
		transfer_until_end()
		return
	}
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
	fmt.Println("transferred", transfer())
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
