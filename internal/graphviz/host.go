package graphviz

import (
	"context"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// saidKey finds in a context what the program says.
type saidKey struct{}

// maxSaid bounds what is kept of it, in bytes.
const maxSaid = 2000

const (
	i32 = api.ValueTypeI32
	i64 = api.ValueTypeI64
	// badFile is EBADF of WASI, and noFile ENOENT of Linux as emscripten returns it.
	badFile, noFile = 8, -44
)

// host gives the program what it imports: memory when it needs more, a place
// for its complaints, and otherwise the answer that there is nothing: no files,
// no environment, no clock, no randomness.
func host(ctx context.Context, r wazero.Runtime) error {
	b := r.NewHostModuleBuilder("a")
	add := func(name string, f func(context.Context, api.Module, []uint64), params, results []api.ValueType) {
		b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(f), params, results).Export(name)
	}
	answer := func(value int32) func(context.Context, api.Module, []uint64) {
		return func(_ context.Context, _ api.Module, stack []uint64) { stack[0] = api.EncodeI32(value) }
	}
	silent := func(context.Context, api.Module, []uint64) {}
	stop := func(why string) func(context.Context, api.Module, []uint64) {
		return func(context.Context, api.Module, []uint64) { panic(why) } // wazero makes it the error of the call
	}
	one, two, three, four := []api.ValueType{i32}, []api.ValueType{i32, i32}, []api.ValueType{i32, i32, i32}, []api.ValueType{i32, i32, i32, i32}

	add("a", stop("an assertion of Graphviz failed"), four, nil)                                                                    // __assert_fail
	add("b", stop("Graphviz threw an exception"), three, nil)                                                                       // __cxa_throw
	add("c", stop("Graphviz ended"), one, nil)                                                                                      // exit
	add("d", write, four, one)                                                                                                      // fd_write
	add("e", answer(0), one, one)                                                                                                   // fd_close
	add("f", answer(noFile), three, one)                                                                                            // fcntl64
	add("g", func(_ context.Context, _ api.Module, s []uint64) { s[0] = api.EncodeF64(0) }, nil, []api.ValueType{api.ValueTypeF64}) // emscripten_date_now
	add("h", stop("Graphviz gave up"), nil, nil)                                                                                    // _abort_js
	add("i", answer(badFile), four, one)                                                                                            // fd_read
	add("j", answer(noFile), three, one)                                                                                            // ioctl
	add("k", grow, one, one)                                                                                                        // emscripten_resize_heap
	add("l", answer(noFile), four, one)                                                                                             // openat
	add("m", answer(noFile), []api.ValueType{i32, i32, i32, i32, i64, i32, i32}, one)                                               // _mmap_js
	add("n", answer(noFile), []api.ValueType{i32, i32, i32, i32, i32, i64}, one)                                                    // _munmap_js
	add("o", answer(0), []api.ValueType{i64, i32}, one)                                                                             // _localtime_js
	add("p", complain, one, one)                                                                                                    // viz_errorf
	add("q", silent, four, nil)                                                                                                     // _tzset_js
	add("r", answer(badFile), []api.ValueType{i32, i64, i32, i32}, one)                                                             // fd_seek
	add("s", answer(0), two, one)                                                                                                   // environ_get
	add("t", nothing, two, one)                                                                                                     // environ_sizes_get
	add("u", answer(noFile), two, one)                                                                                              // random_get
	add("v", answer(noFile), four, one)                                                                                             // newfstatat
	add("w", answer(noFile), two, one)                                                                                              // fstat64
	add("x", answer(badFile), []api.ValueType{i32, i64, i32}, one)                                                                  // clock_time_get
	add("y", answer(noFile), four, one)                                                                                             // faccessat
	_, err := b.Instantiate(ctx)
	return err
}

// grow gives the program a heap of a size in bytes, within maxMemory.
func grow(_ context.Context, m api.Module, stack []uint64) {
	const page = 65536
	wanted, have := uint32(stack[0]), m.Memory().Size()
	stack[0] = 1
	if wanted <= have {
		return
	}
	missing := (wanted-have)/page + 1
	// A fifth more than it asks for, so that it does not ask for each page.
	if _, ok := m.Memory().Grow(missing + have/page/5); ok {
		return
	}
	if _, ok := m.Memory().Grow(missing); !ok {
		stack[0] = 0
	}
}

// nothing answers that the environment has no variable.
func nothing(_ context.Context, m api.Module, stack []uint64) {
	m.Memory().WriteUint32Le(uint32(stack[0]), 0)
	m.Memory().WriteUint32Le(uint32(stack[1]), 0)
	stack[0] = 0
}

// complain keeps what Graphviz says of an error.
func complain(ctx context.Context, m api.Module, stack []uint64) {
	at := uint32(stack[0])
	text, _ := m.Memory().Read(at, min(maxSaid, m.Memory().Size()-at))
	said, _, _ := strings.Cut(string(text), "\x00")
	keep(ctx, said)
	stack[0] = 0
}

// write keeps what Graphviz writes to a file descriptor, which is stderr alone.
func write(ctx context.Context, m api.Module, stack []uint64) {
	vectors, count, written := uint32(stack[1]), uint32(stack[2]), uint32(stack[3])
	total := uint32(0)
	for i := range min(count, 1024) {
		at, _ := m.Memory().ReadUint32Le(vectors + 8*i)
		size, _ := m.Memory().ReadUint32Le(vectors + 8*i + 4)
		text, _ := m.Memory().Read(at, size)
		keep(ctx, string(text))
		total += size
	}
	m.Memory().WriteUint32Le(written, total)
	stack[0] = 0
}

func keep(ctx context.Context, text string) {
	if said, ok := ctx.Value(saidKey{}).(*strings.Builder); ok && said.Len() < maxSaid {
		said.WriteString(text[:min(len(text), maxSaid)])
	}
}
