//! The command line. What the commands do is in the crates; here they are wired together.

mod cli;
mod command;
mod exit;
mod places;
mod reload;
mod services;
mod show;
mod store;
mod watch;

use clap::Parser;

/// Records are read in one thread, judged in another and written in a third: memory is mostly freed where it was not
/// allocated, which is what the system's allocator is slowest at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    let cli = cli::Cli::parse();
    exit::code(command::run(cli))
}
