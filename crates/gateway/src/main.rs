//! The `tidegate` binary. Everything it does is in the library, where tests can reach it.

fn main() -> std::process::ExitCode {
    tidegate::cli::main()
}
