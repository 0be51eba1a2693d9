//! What was typed, what is echoed, and what the exit code says.

use clap::Parser as _;
use proptest::prelude::*;

use super::*;
use crate::cli::{Cli, Command};

fn parse(line: &str) -> RunArgs {
    let Command::Load(args) = Cli::try_parse_from(line.split_whitespace()).unwrap().command else {
        panic!("not a load command")
    };
    let LoadCommand::Run(args) = args.command;
    *args
}

fn same(a: &LoadOptions, b: &LoadOptions) {
    assert_eq!(serde_json::to_value(a).unwrap(), serde_json::to_value(b).unwrap());
}

#[test]
fn the_echoed_line_is_the_same_run() {
    let all = "highwater load run -t h:1 -r 20k -d 10s --warmup 0s --size 1KiB --producers 2 --consumers 0 \
               --stream s --shards 4 --ack written --retention-bytes 1GiB --arrival poisson --clients 3 \
               --batch 64K --linger 1ms --inflight 2 --connections 2 --cores 0-1 --seed 9 --spin 0us \
               --drain-timeout 1m";
    for typed in ["highwater load run", all, "highwater load run -r max"] {
        let options = parse(typed).options().unwrap();
        same(&options, &parse(&echo::command(&options)).options().unwrap());
    }
    let options = parse(all).options().unwrap();
    assert_eq!((options.rate, options.record_size), (Rate::PerSecond(20_000.0), 1024));
    assert_eq!((options.batch_bytes, options.cores.as_slice()), (65_536, &[0, 1][..]));
}

#[test]
fn values_out_of_range_are_wrong_usage() {
    for line in ["--size 8", "--producers 0", "-d 0s", "--stream a/b", "--inflight 0"] {
        let args = parse(&format!("highwater load run {line}"));
        let error = args.options().unwrap_err();
        assert!(matches!(error, Failure::Usage(_)), "{line}: {error}");
    }
    for line in ["--size 99MiB", "-r 0", "-r fast", "--slo p99", "--ack never"] {
        let line = format!("highwater load run {line}");
        assert!(Cli::try_parse_from(line.split_whitespace()).is_err(), "{line}");
    }
}

proptest! {
    #[test]
    fn any_run_is_echoed_faithfully(rate in 1u64..1_000_000, ms in 1u64..100_000, size in 32u64..100_000) {
        let line = format!("highwater load run -r {rate} -d {ms}ms --size {size} --linger {ms}us");
        let options = parse(&line).options().unwrap();
        same(&options, &parse(&echo::command(&options)).options().unwrap());
    }
}
