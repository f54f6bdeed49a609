//! Runs one fuzz target under libFuzzer: the one that `FUZZ_TARGET` names (`list` prints all). Started by `make fuzz`.
//!
//! In: libFuzzer's options and folders. Out: its log, and an input for each crash. A slow input is told
//! too, if it is slower than those before it.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
mod run {
    use std::cell::Cell;
    use std::sync::OnceLock;
    use std::time::{Duration, Instant};

    use libfuzzer_sys::fuzz_target;
    use pushgate::fuzzing::{TARGETS, Target};

    /// An input that takes longer is slow.
    const SLOW: Duration = Duration::from_millis(100);

    thread_local! {
        static SLOWEST: Cell<Duration> = const { Cell::new(SLOW) };
    }

    static TARGET: OnceLock<Target> = OnceLock::new();

    fuzz_target!(init: choose(), |data: &[u8]| {
        let Some(target) = TARGET.get() else { return };
        if time(*target, data) > SLOWEST.get() {
            // Another process may have had the core: only twice in a row counts.
            let again = time(*target, data);
            if again > SLOWEST.get() {
                SLOWEST.set(again);
                eprintln!("slow input, {again:?}: {}", data.escape_ascii());
            }
        }
    });

    fn time(target: Target, data: &[u8]) -> Duration {
        let began = Instant::now();
        target(data);
        began.elapsed()
    }

    /// Takes the target that the environment names; ends the process where it names none.
    fn choose() {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        if name == "list" {
            TARGETS.iter().for_each(|(known, _)| println!("{known}"));
            std::process::exit(0);
        }
        let found = TARGETS.iter().find(|(known, _)| *known == name);
        let Some((_, target)) = found else {
            eprintln!("FUZZ_TARGET: no target `{name}`; `list` prints all");
            std::process::exit(2);
        };
        let _ = TARGET.set(*target);
    }
}

/// Without the instrumentation there is nothing to run.
#[cfg(not(fuzzing))]
fn main() {
    eprintln!("build it by `make fuzz`");
    std::process::exit(2);
}
