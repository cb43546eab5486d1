//! The command line: one variant per command, each with its own file under
//! `commands`.

use clap::{Parser, Subcommand};

use crate::commands::{
    audit, ban, certificate, certs, completions, config, demo, dev, doctor, drain, gc, info,
    keygen, list, log_level, man, monitor, peers, reconcile, reputation, rules, run, send, sim,
    status, surface, test_byzantine, trace, unban, verify, version, violations, vote, watch,
};
use crate::failure::{EXIT_CODES, Outcome};
use crate::output::Out;

const EXAMPLES: &str = "\
Examples:
  quorate demo                                  seven scenarios, told and checked
  quorate dev                                   a five-node cluster on this machine
  quorate vote --tx-id tx_001 --value 42 --node node1,node2,node3,node4
  quorate status tx_001
  quorate certificate tx_001 -o tx_001.proof
  quorate verify tx_001.proof --cluster-id <64 hex digits>
  quorate sim                                   hunts for faults in a simulated world";

/// Lets N independent trustees decide, submits what t of them agree on exactly once,
/// and proves who lied.
#[derive(Debug, Parser)]
#[command(name = "quorate", version, propagate_version = false)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
#[command(arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Cli {
    /// Print JSON instead of text; errors go to standard error, as JSON too
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::DemoArgs),
    Dev(dev::DevArgs),
    Run(run::RunArgs),
    Vote(vote::VoteArgs),
    Status(status::StatusArgs),
    Watch(watch::WatchArgs),
    Trace(trace::TraceArgs),
    List(list::ListArgs),
    Certificate(certificate::CertificateArgs),
    Info(info::InfoArgs),
    Peers(peers::PeersArgs),
    Reputation(reputation::ReputationArgs),
    Violations(violations::ViolationsArgs),
    Ban(ban::BanArgs),
    Unban(unban::UnbanArgs),
    Send(send::SendArgs),
    Monitor(monitor::MonitorArgs),
    Doctor(doctor::DoctorArgs),
    LogLevel(log_level::LogLevelArgs),
    Drain(drain::DrainArgs),
    Verify(verify::VerifyArgs),
    Audit(audit::AuditArgs),
    Gc(gc::GcArgs),
    Reconcile(reconcile::ReconcileArgs),
    Rules(rules::RulesArgs),
    Certs(certs::CertsArgs),
    Keygen(keygen::KeygenArgs),
    Config(config::ConfigArgs),
    Sim(sim::SimArgs),
    TestByzantine(test_byzantine::TestByzantineArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
    #[command(hide = true)]
    Surface(surface::SurfaceArgs),
    Version(version::VersionArgs),
}

impl Cli {
    /// Carries the command out.
    pub(crate) async fn run(self, out: Out) -> Outcome {
        match self.command {
            Command::Demo(args) => demo::run(args, out).await,
            Command::Dev(args) => dev::run(args, out).await,
            Command::Run(args) => run::run(args, out).await,
            Command::Vote(args) => vote::run(args, out).await,
            Command::Status(args) => status::run(args, out).await,
            Command::Watch(args) => watch::run(args, out).await,
            Command::Trace(args) => trace::run(args, out).await,
            Command::List(args) => list::run(args, out).await,
            Command::Certificate(args) => certificate::run(args, out).await,
            Command::Info(args) => info::run(args, out).await,
            Command::Peers(args) => peers::run(args, out).await,
            Command::Reputation(args) => reputation::run(args, out).await,
            Command::Violations(args) => violations::run(args, out).await,
            Command::Ban(args) => ban::run(args, out).await,
            Command::Unban(args) => unban::run(args, out).await,
            Command::Send(args) => send::run(args, out).await,
            Command::Monitor(args) => monitor::run(args, out).await,
            Command::Doctor(args) => doctor::run(args, out).await,
            Command::LogLevel(args) => log_level::run(args, out).await,
            Command::Drain(args) => drain::run(args, out).await,
            Command::Verify(args) => verify::run(args, out),
            Command::Audit(args) => audit::run(args, out).await,
            Command::Gc(args) => gc::run(args, out).await,
            Command::Reconcile(args) => reconcile::run(args, out).await,
            Command::Rules(args) => rules::run(args, out).await,
            Command::Certs(args) => certs::run(args, out),
            Command::Keygen(args) => keygen::run(args, out),
            Command::Config(args) => config::run(args, out),
            Command::Sim(args) => sim::run(args, out).await,
            Command::TestByzantine(args) => test_byzantine::run(args, out).await,
            Command::Completions(args) => completions::run(args, out),
            Command::Man(args) => man::run(args, out),
            Command::Surface(args) => surface::run(args, out),
            Command::Version(args) => version::run(args, out),
        }
    }
}
