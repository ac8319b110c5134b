//! The command line. What the commands do is in the crates; here they are wired together.

mod cli;
mod command;
mod exit;
mod services;
mod show;

use clap::Parser;

fn main() -> std::process::ExitCode {
    let cli = cli::Cli::parse();
    exit::code(command::run(cli))
}
