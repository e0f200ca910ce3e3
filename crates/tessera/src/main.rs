//! The binary: reads the command line, and composes a node from the real world, the storage and the doors.

mod command;
mod demo;
mod options;
mod registry;
mod source;
mod start;
mod status;

use clap::Parser;
use options::{Command, CommandLine};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let line = CommandLine::parse();
    let ended = match line.command.unwrap_or_else(Command::start) {
        Command::Start(options) => start::run(*options),
        Command::Demo => demo::run(),
        Command::Status(options) => status::run(&options),
        Command::Split(options) => command::split(&options),
        Command::Set(options) => command::set(&options),
        Command::Node(options) => command::node(&options),
        Command::Repair(options) => command::repair(&options),
        Command::Rebuild(options) => command::rebuild(&options),
        Command::Version => {
            println!("tessera {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("tessera: {message}");
            ExitCode::FAILURE
        }
    }
}
