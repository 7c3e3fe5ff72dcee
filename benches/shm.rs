//! Device sets between two processes, beside a pipe and a bare Unix socket between two processes, in one run.
//!
//! `cargo bench --bench shm --features shm,testing`; the first argument, if it is a number, is the GiB to move (default 8).

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark may")]

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use vdstream::vdi::client::{self, Completion};
use vdstream::vdi::{CommandCode, Config, ServerConfig, ShmHub, ShmOptions, Status, server};

const TRANSFER: usize = 1 << 20;
const DEPTH: usize = 4;
const ROUND_TRIPS: usize = 20_000;
/// Bytes of a command's message and of its answer's, with their headers.
const COMMAND: usize = 37;
const ANSWER: usize = 32;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.first().map(String::as_str) {
        Some("pipe") => read_pipe(),
        Some("socket") => answer_socket(Path::new(&arguments[1])),
        Some("engine") => block_on(agent(Path::new(&arguments[1]))),
        other => compare(other.and_then(|count| count.parse().ok()).unwrap_or(8)),
    }
}

fn compare(gib: usize) {
    let root = tempfile::tempdir().unwrap();
    let transfers = gib * 1024;
    println!("{gib} GiB in transfers of 1 MiB, one stream, from one process to another");
    let (mut best_pipe, mut best_shm) = (f64::MAX, f64::MAX);
    let (mut cpu_pipe, mut cpu_shm) = (f64::MAX, f64::MAX);
    for _ in 0..3 {
        let (seconds, cpu) = pipe(transfers);
        report("pipe", gib, seconds, cpu);
        (best_pipe, cpu_pipe) = (best_pipe.min(seconds), cpu_pipe.min(cpu));
        let (seconds, cpu) = block_on(shared(root.path(), transfers));
        report("shared memory", gib, seconds, cpu);
        (best_shm, cpu_shm) = (best_shm.min(seconds), cpu_shm.min(cpu));
    }
    println!(
        "best of 3: {:.2} times the throughput of the pipe, {:.2} of its CPU time",
        best_pipe / best_shm,
        cpu_shm / cpu_pipe
    );
    println!("{ROUND_TRIPS} round trips, one at a time");
    let (mut bare, mut ours) = (Duration::MAX, Duration::MAX);
    for _ in 0..3 {
        let socket = ping_pong(&root.path().join("socket"));
        let command = block_on(round_trips(root.path()));
        println!("median: bare socket {socket:?}, command {command:?}");
        (bare, ours) = (bare.min(socket), ours.min(command));
    }
    println!("best of 3: {:.2} times the bare socket", ours.as_secs_f64() / bare.as_secs_f64());
}

fn report(what: &str, gib: usize, seconds: f64, cpu: f64) {
    #[expect(clippy::cast_precision_loss, reason = "a few GiB")]
    let gib = gib as f64;
    println!("{what:>14}: {:.2} GiB/s, {:.3} s of CPU per GiB", gib / seconds, cpu / gib);
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn child(role: &str, path: &Path, stdin: Stdio) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg(role).arg(path).stdin(stdin).stdout(Stdio::piped()).spawn().unwrap()
}

/// The child's last line: its CPU time.
fn cpu_of(child: &mut Child) -> f64 {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let cpu = lines.next().unwrap().unwrap().parse().unwrap();
    assert!(child.wait().unwrap().success());
    cpu
}

/// CPU seconds of this process so far, of user and system.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap();
    let nanoseconds: u64 = stat.split(' ').next().unwrap().parse().unwrap();
    Duration::from_nanos(nanoseconds).as_secs_f64()
}

fn pages() -> Vec<u8> {
    (0..TRANSFER).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

fn pipe(transfers: usize) -> (f64, f64) {
    let pages = pages();
    let mut child = child("pipe", Path::new("-"), Stdio::piped());
    let mut stdin = child.stdin.take().unwrap();
    let (started, before) = (Instant::now(), cpu());
    for _ in 0..transfers {
        stdin.write_all(&pages).unwrap();
    }
    drop(stdin);
    let theirs = cpu_of(&mut child);
    (started.elapsed().as_secs_f64(), cpu() - before + theirs)
}

fn read_pipe() {
    let (mut stdin, mut buffer) = (std::io::stdin().lock(), vec![0; TRANSFER]);
    let before = cpu();
    let mut sum = 0;
    loop {
        let count = stdin.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        sum += count + usize::from(buffer[count - 1]);
    }
    std::hint::black_box(sum);
    println!("{}", cpu() - before);
}

/// A configured set whose client is a child process.
async fn opened(root: &Path) -> (server::DeviceSet, Child) {
    let path: PathBuf = root.join("hub");
    let child = child("engine", &path, Stdio::null());
    let hub = ShmHub::open(ShmOptions { directory: Some(path), ..ShmOptions::default() }).unwrap();
    let set = loop {
        match server::DeviceSet::open(&hub, "bench").await {
            Err(error) if error.status() == Status::Invalid => tokio::time::sleep(Duration::from_millis(1)).await,
            opened => break opened.unwrap(),
        }
    };
    let config = ServerConfig { max_transfer_size: u32::try_from(TRANSFER).unwrap(), ..ServerConfig::default() };
    set.begin_configuration(config).unwrap().request_buffers(TRANSFER, 0, DEPTH).unwrap();
    set.end_configuration().await.unwrap();
    (set, child)
}

async fn shared(root: &Path, transfers: usize) -> (f64, f64) {
    let pages = pages();
    let (set, mut child) = opened(root).await;
    let device = set.open_device().unwrap();
    let (started, before) = (Instant::now(), cpu());
    let work = async {
        let mut answers = VecDeque::new();
        let mut free: Vec<_> = (0..DEPTH).map(|_| set.allocate_buffer(TRANSFER, 0).unwrap()).collect();
        for _ in 0..transfers {
            let mut buffer = match free.pop() {
                Some(buffer) => buffer,
                None => {
                    let answer: server::CommandFuture = answers.pop_front().unwrap();
                    answer.await.buffer.unwrap()
                }
            };
            buffer.write_at(0, &pages).unwrap();
            answers.push_back(device.send_when_ready(server::Command::write(buffer, TRANSFER)).await.unwrap());
        }
        for answer in answers {
            assert!(answer.await.is_success());
        }
        device.close().unwrap();
    };
    let (returned, ()) = tokio::join!(set.completion_agent(), work);
    returned.unwrap();
    let (seconds, ours) = (started.elapsed().as_secs_f64(), cpu() - before);
    set.close().await.unwrap();
    (seconds, ours + cpu_of(&mut child))
}

async fn agent(hub: &Path) {
    let hub = ShmHub::open(ShmOptions { directory: Some(hub.to_owned()), ..ShmOptions::default() }).unwrap();
    let set = client::DeviceSet::create(&hub, "bench", Config::pipe(1)).unwrap();
    set.configuration(None).await.unwrap();
    let mut device = set.open_device("bench").unwrap();
    let mut buffer = vec![0; TRANSFER];
    let before = cpu();
    let mut sum = 0;
    loop {
        match device.next_command(None).await {
            Ok(command) if command.code() == CommandCode::Write => {
                command.read_at(0, &mut buffer).unwrap();
                sum += usize::from(buffer[TRANSFER - 1]);
                command.complete(Completion::transferred(TRANSFER)).unwrap();
            }
            Ok(command) => command.complete(Completion::success()).unwrap(),
            Err(error) => {
                assert_eq!(error.status(), Status::Close);
                break;
            }
        }
    }
    std::hint::black_box(sum);
    let used = cpu() - before;
    set.close().await.unwrap();
    println!("{used}");
}

async fn round_trips(root: &Path) -> Duration {
    let (set, mut child) = opened(root).await;
    let device = set.open_device().unwrap();
    let work = async {
        let mut times = Vec::with_capacity(ROUND_TRIPS);
        for _ in 0..ROUND_TRIPS {
            let started = Instant::now();
            assert!(device.send(server::Command::flush()).unwrap().await.is_success());
            times.push(started.elapsed());
        }
        device.close().unwrap();
        median(times)
    };
    let (returned, median) = tokio::join!(set.completion_agent(), work);
    returned.unwrap();
    set.close().await.unwrap();
    cpu_of(&mut child);
    median
}

fn ping_pong(path: &Path) -> Duration {
    let listener = UnixListener::bind(path).unwrap();
    let mut child = child("socket", path, Stdio::null());
    let (mut stream, _) = listener.accept().unwrap();
    let (command, mut answer) = ([7; COMMAND], [0; ANSWER]);
    let mut times = Vec::with_capacity(ROUND_TRIPS);
    for _ in 0..ROUND_TRIPS {
        let started = Instant::now();
        stream.write_all(&command).unwrap();
        stream.read_exact(&mut answer).unwrap();
        times.push(started.elapsed());
    }
    drop(stream);
    cpu_of(&mut child);
    std::fs::remove_file(path).unwrap();
    median(times)
}

fn answer_socket(path: &Path) {
    let mut stream = UnixStream::connect(path).unwrap();
    let (mut command, answer) = ([0; COMMAND], [7; ANSWER]);
    while stream.read_exact(&mut command).is_ok() {
        stream.write_all(&answer).unwrap();
    }
    println!("{}", cpu());
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
