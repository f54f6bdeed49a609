//! The program: passes the command line to [`pushgate::cli`].

/// The allocator was chosen by measurement: docs/decisions/0011-allocator.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    pushgate::cli::main()
}
