//! The program: hands the command line to [`pushgate::cli`].

fn main() -> std::process::ExitCode {
    pushgate::cli::main()
}
