//! The service log on standard error: what the process does and what goes wrong.
//!
//! In: `log` records of this program and its libraries; panics. Out: lines, in their order, through a
//! [`LineQueue`], so that no thread waits for the reader of a pipe; or entries for systemd's journal. Until [`start`] each line is written at
//! once: nobody is served yet, and an error that ends the start must be seen.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use env_logger::fmt::WriteStyle;
use env_logger::{Builder, Env, Target};
use log::{Level, Log, Metadata, Record};
use parking_lot::Mutex;

use super::journald::{Entry, Sender};
use super::line_queue::{self, LineQueue, Out};
use super::metrics;
use super::pace::{LeftOut, Pace, REPORT_EVERY};
use crate::clock;
use crate::config::ServiceLog;

/// Longest time for the last lines at the end of the process.
const FLUSH: Duration = Duration::from_secs(1);
/// Longest time for the message of a panic: the process may be about to abort.
const FLUSH_PANIC: Duration = Duration::from_millis(100);

static QUEUE: OnceLock<LineQueue> = OnceLock::new();
/// Where lines go before there is a thread for them.
static FIRST: OnceLock<Mutex<Box<dyn Write + Send>>> = OnceLock::new();
static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Sets up the log in `form`, with levels from `RUST_LOG` or else `levels`. Called once, first of all.
pub fn init(levels: &str, form: ServiceLog) {
    let socket = match &form {
        ServiceLog::Journald(path) => Some(path.as_path()),
        _ => None,
    };
    let _ = FIRST.set(Mutex::new(way(socket)));
    let _ = QUEUE.set(LineQueue::new(Owner, Out::stream(way(socket))));
    let mut builder = Builder::from_env(Env::default().default_filter_or(levels));
    match form {
        ServiceLog::Text => {}
        ServiceLog::Journal => drop(builder.format(journal)),
        ServiceLog::Json => drop(builder.format(json)),
        // The builder's writer would drop the lengths of fields: it removes control characters.
        ServiceLog::Journald(_) => {}
    }
    if socket.is_none() && is_coloured() {
        builder.write_style(WriteStyle::Always);
    }
    let inner = builder.target(Target::Pipe(Box::new(Lines))).build();
    let level = inner.filter();
    let logger = LOGGER.get_or_init(|| Logger {
        inner,
        is_journal: socket.is_some(),
        pace: Mutex::default(),
    });
    if log::set_logger(logger).is_ok() {
        log::set_max_level(level);
        std::panic::set_hook(Box::new(panicked));
    }
}

/// Hands the lines to a thread from now on. Called after a daemon's fork, because a fork would end the thread.
///
/// Errors: the system cannot start a thread.
pub fn start() -> io::Result<()> {
    QUEUE.get().map_or(Ok(()), LineQueue::start)
}

/// Waits until the queued lines are written, for one second at most.
pub fn flush() {
    report();
    QUEUE.get().into_iter().for_each(|queue| queue.flush(FLUSH));
}

/// Returns the way to the journal with this socket, or else standard error.
fn way(journal: Option<&Path>) -> Box<dyn Write + Send> {
    match journal {
        Some(path) => Box::new(Journal(Sender::new(path.to_owned()))),
        None => Box::new(io::stderr()),
    }
}

/// The journal; while it is away, standard error gets the entries as they are.
struct Journal(Sender);

impl Write for Journal {
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        match self.0.write(entry) {
            Ok(n) => Ok(n),
            Err(_) => io::stderr().write_all(entry).map(|()| entry.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The level of a record as syslog has it.
fn number(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// Writes a record as an entry with fields for systemd's journal. Source: systemd.journal-fields(7).
fn entry(record: &Record<'_>) -> Vec<u8> {
    let mut entry = Entry::new(number(record.level()), &record.args().to_string());
    entry.add("PUSHGATE_TARGET", record.target());
    if let (Some(file), Some(line)) = (record.file(), record.line()) {
        entry.add("CODE_FILE", file);
        entry.add("CODE_LINE", &line.to_string());
    }
    entry.into_bytes()
}

/// Writes a record for systemd's journal, which reads the level from the front of each line. It adds the date itself.
/// Source: sd-daemon(3).
fn journal<W: Write>(out: &mut W, record: &Record<'_>) -> io::Result<()> {
    let level = number(record.level());
    let text = format!("{}: {}", record.target(), record.args());
    text.lines()
        .try_for_each(|line| writeln!(out, "<{level}>{line}"))
}

/// Writes a record as a JSON object.
fn json<W: Write>(out: &mut W, record: &Record<'_>) -> io::Result<()> {
    let line = serde_json::json!({
        "date": humantime::format_rfc3339_millis(clock::wall()).to_string(),
        "level": record.level().as_str(), "target": record.target(), "message": record.args().to_string(),
    });
    writeln!(out, "{line}")
}

/// Whether to colour the lines, by the same rules as before they went through a queue.
fn is_coloured() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    io::stderr().is_terminal() && !is_dumb && !is_set("NO_COLOR") && !is_set("RUST_LOG_STYLE")
}

/// Formats records, and limits their pace.
struct Logger {
    inner: env_logger::Logger,
    is_journal: bool,
    pace: Mutex<Pace>,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.inner.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.inner.matches(record) {
            return;
        }
        let module = record.module_path().unwrap_or(record.target());
        let place = (module, record.line());
        let text = || record.args().to_string();
        let now = Instant::now();
        if self.pace.lock().allows(place, record.level(), now, text) {
            self.write(record);
        } else {
            let lost = &metrics::get().lost_lines;
            lost.with_label_values(&[<Owner as line_queue::Owner>::NAME, "limited"])
                .inc();
        }
    }

    fn flush(&self) {}
}

impl Logger {
    fn write(&self, record: &Record<'_>) {
        match self.is_journal {
            // An error has been shown on standard error, or nothing can show it.
            true => drop(put(entry(record))),
            false => self.inner.log(record),
        }
    }
}

/// Logs how many lines were left out.
fn report() {
    let Some(logger) = LOGGER.get() else { return };
    let left_out = logger.pace.lock().report();
    for LeftOut {
        level,
        module,
        example,
        count,
    } in left_out
    {
        let seconds = REPORT_EVERY.as_secs();
        let more = format_args!("{count} more like this in the last {seconds} s: {example}");
        let record = Record::builder()
            .level(level)
            .target(&module)
            .args(more)
            .build();
        logger.write(&record);
    }
}

/// What the log has to say of itself.
struct Owner;

impl line_queue::Owner for Owner {
    const NAME: &'static str = "service";
    const TICK: Option<Duration> = Some(REPORT_EVERY);

    fn lost(&self, lost: u64) -> Option<String> {
        Some(format!(
            "pushgate: {lost} log lines were lost, because standard error took none\n"
        ))
    }

    fn tick(&self) {
        report();
    }
}

/// Takes each formatted record, as one write.
struct Lines;

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        put(line.to_vec())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn put(line: Vec<u8>) -> io::Result<()> {
    match QUEUE.get().filter(|queue| queue.is_started()) {
        Some(queue) => queue.push(line),
        None => match FIRST.get() {
            Some(out) => out.lock().write_all(&line)?,
            None => io::stderr().write_all(&line)?,
        },
    }
    Ok(())
}

/// Writes the message of a panic among the other lines, as the standard library would.
fn panicked(info: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("<unnamed>");
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let place = info.location().map(|l| l.to_string()).unwrap_or_default();
    let backtrace = Backtrace::capture();
    let trace = match backtrace.status() {
        BacktraceStatus::Captured => format!("stack backtrace:\n{backtrace}\n"),
        _ => "note: run with RUST_BACKTRACE=1 for a backtrace\n".to_owned(),
    };
    let text = text.unwrap_or("(no message)");
    let line = format!("\nthread '{name}' panicked at {place}:\n{text}\n{trace}");
    // Nothing is left to be done about an error.
    let _ = put(line.into_bytes());
    if let Some(queue) = QUEUE.get() {
        queue.flush(FLUSH_PANIC);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(form: fn(&mut Vec<u8>, &Record<'_>) -> io::Result<()>, level: Level) -> String {
        let mut out = Vec::new();
        let args = format_args!("one\ntwo \"x\"");
        let record = Record::builder()
            .level(level)
            .target("a::b")
            .args(args)
            .build();
        form(&mut out, &record).expect("memory takes it");
        String::from_utf8(out).expect("text")
    }

    /// Aim: the journal knows the level of each line, also of a message with several. Fails if the second line of an
    /// error is an information.
    #[test]
    fn the_journal_knows_the_level_of_each_line() {
        let error = written(journal, Level::Error);
        assert_eq!(error, "<3>a::b: one\n<3>two \"x\"\n");
        assert!(written(journal, Level::Warn).starts_with("<4>"));
    }

    /// Fails if an entry loses its level, its module or a line of its text.
    #[test]
    fn an_entry_has_the_level_and_the_module() {
        let record = Record::builder()
            .level(Level::Warn)
            .target("a::b")
            .args(format_args!("one\ntwo \"x\""))
            .build();
        let entry = String::from_utf8(entry(&record)).expect("text");
        let expected = "PRIORITY=4\nSYSLOG_IDENTIFIER=pushgate\nMESSAGE\n\x0b\0\0\0\0\0\0\0one\ntwo \"x\"\nPUSHGATE_TARGET=a::b\n";
        assert_eq!(entry, expected);
    }

    #[test]
    fn a_json_line_is_one_object() {
        let line = written(json, Level::Info);
        let object: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(
            (&object["level"], &object["message"]),
            (&"INFO".into(), &"one\ntwo \"x\"".into())
        );
        assert_eq!(line.matches('\n').count(), 1);
    }
}
