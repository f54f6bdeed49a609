//! Logs between a test and pipes or files that take much, little or nothing.

use std::io::Read;

use super::*;

/// A log that writes a line of its own after a loss. Each test has its own, because they share the metrics.
struct Test<const N: usize>;

const NAMES: [&str; 5] = ["pipe", "bytes", "disk", "torn", "file"];

impl<const N: usize> Owner for Test<N> {
    const NAME: &'static str = NAMES[N];

    fn lost(&self, lost: u64) -> Option<String> {
        Some(format!("{lost} lost\n"))
    }
}

fn lost(log: &str, why: &str) -> u64 {
    let lost = &metrics::get().lost_lines;
    lost.with_label_values(&[log, why]).get()
}

/// Aim: a pipe that nobody reads delays no caller, and lines are lost instead; then the lines come in order,
/// and the loss is reported. Fails, by the deadline of the test, if `push` waits for room; fails if `flush`
/// has no bound.
#[test]
fn a_full_pipe_delays_no_caller() {
    let (mut reader, writer) = io::pipe().expect("a pipe");
    let queue = LineQueue::new(Test::<0>, Out::stream(writer));
    queue.start().expect("a thread");
    let begin = Instant::now();
    for n in 0..3 * MAX_LINES {
        queue.push(format!("line {n:06}\n").into_bytes());
    }
    queue.flush(Duration::from_millis(50));
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    let lost = lost("pipe", "queue_full");
    assert!(lost as usize > MAX_LINES, "{lost} lost");
    let reader = std::thread::spawn(move || {
        let mut all = String::new();
        reader.read_to_string(&mut all).expect("lines");
        all
    });
    queue.flush(Duration::from_secs(10));
    drop(queue);
    let all = reader.join().expect("all lines");
    let lines = all.lines().filter(|l| l.starts_with("line "));
    let lines: Vec<_> = lines.collect();
    assert_eq!(lines.len() + lost as usize, 3 * MAX_LINES);
    assert!(lines.is_sorted(), "in their order");
    let told = all.lines().filter_map(|l| l.strip_suffix(" lost"));
    let told: u64 = told.filter_map(|n| n.parse::<u64>().ok()).sum();
    assert_eq!(told, lost);
}

/// Aim: long lines cannot fill the memory. Fails if only their number is bounded.
#[test]
fn bytes_are_bounded() {
    let (_reader, writer) = io::pipe().expect("a pipe");
    let queue = LineQueue::new(Test::<1>, Out::stream(writer));
    for _ in 0..32 {
        queue.push(vec![b'x'; 1 << 20]);
    }
    let held = queue.shared.bytes.load(Ordering::Relaxed);
    assert_eq!(held, MAX_BYTES);
}

/// Aim: lines that a full disk refuses are counted. Fails if an error of the write is dropped.
#[test]
fn a_full_disk_is_counted() {
    let full = Out::file("/dev/full".into()).expect("the device");
    let queue = LineQueue::new(Test::<2>, full);
    queue.start().expect("a thread");
    for _ in 0..10 {
        queue.push(b"line\n".to_vec());
    }
    queue.flush(Duration::from_secs(10));
    assert_eq!(lost("disk", "write_failed"), 10);
}

/// Takes some bytes, then fails once, then takes all.
struct Torn(Arc<Mutex<Vec<u8>>>, u8);

impl io::Write for Torn {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1 += 1;
        let taken = match self.1 {
            1 => 2,
            2 => return Err(io::ErrorKind::StorageFull.into()),
            _ => bytes.len(),
        };
        self.0.lock().extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Aim: a line that was cut by an error does not spoil the next one. Fails if the next line begins where the
/// cut one ended.
#[test]
fn a_torn_line_spoils_no_other() {
    let all = Arc::new(Mutex::new(Vec::new()));
    let queue = LineQueue::new(Test::<3>, Out::stream(Torn(all.clone(), 0)));
    queue.start().expect("a thread");
    queue.push(b"first\n".to_vec());
    queue.push(b"second\n".to_vec());
    queue.flush(Duration::from_secs(10));
    assert_eq!(*all.lock(), b"fi\nsecond\n1 lost\n");
}

/// Aim: after log rotation, lines go to the new file, also if the queue was full. Fails if only the message
/// asks for it.
#[test]
fn a_renamed_file_is_opened_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let (path, old) = (dir.path().join("log"), dir.path().join("old"));
    let queue = LineQueue::new(Test::<4>, Out::file(path.clone()).expect("a file"));
    for _ in 0..MAX_LINES {
        queue.push(b"a\n".to_vec());
    }
    std::fs::rename(&path, &old).expect("rename");
    queue.reopen();
    queue.start().expect("a thread");
    queue.flush(Duration::from_secs(10));
    let length = |path| std::fs::metadata(path).expect("a file").len() as usize;
    assert_eq!((length(&old), length(&path)), (0, 2 * MAX_LINES));
}
