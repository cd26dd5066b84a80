//! `sameport doctor`: what this host supports, what is missing, and how to get it.

mod findings;

use clap::Args;
use sameport::{
    api::schema::{Check, CheckLevel},
    control_chars::visible,
    engine::{
        Engine,
        docker::{Docker, Surroundings},
    },
    kernel::{
        capability::{self, Capability},
        feature_probe,
    },
};

use findings::Facts;

use super::{
    boot,
    context::Context,
    error::{CliError, styled},
    output, projects,
};

/// Arguments of `sameport doctor`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  sameport doctor --format json | jq '.[] | select(.level != \"ok\")'")]
pub struct DoctorArgs {}

/// Runs `sameport doctor`.
pub async fn run(context: &Context, _: DoctorArgs) -> Result<(), CliError> {
    let findings = findings::judge(&collect(context).await);
    match context.data() {
        Some(format) => format.array(&findings)?,
        None => findings.iter().try_for_each(show)?,
    }
    match findings.iter().filter(|finding| finding.level == CheckLevel::Missing).count() {
        0 => Ok(()),
        // `show` has printed the reasons.
        _ => Err(CliError::Exit(1)),
    }
}

fn show(finding: &Check) -> Result<(), CliError> {
    use anstyle::AnsiColor::{Green, Red, Yellow};
    let (word, color) = match finding.level {
        CheckLevel::Ok => ("ok     ", Green),
        CheckLevel::Limited => ("limited", Yellow),
        CheckLevel::Missing => ("missing", Red),
    };
    let found = visible(&finding.found);
    output::colored_line(&format!("{}  {:<11} {found}", styled(word, color.on_default()), finding.topic))?;
    for line in [finding.consequence.as_ref(), finding.help.as_ref()].into_iter().flatten() {
        output::line(&format!("{:22}{line}", ""))?;
    }
    Ok(())
}

async fn collect(context: &Context) -> Facts {
    let address = Surroundings::from_env().endpoint().map(|endpoint| endpoint.host).unwrap_or_default();
    let docker = Docker::connect().await;
    let foreign = match &docker {
        Ok(docker) => projects::foreign(context, docker).await,
        Err(_) => Ok(Vec::new()),
    };
    let running = match &docker {
        Ok(docker) => projects::running(context, docker).await.unwrap_or_default(),
        Err(_) => Vec::new(),
    };
    let engine = async { docker?.info().await }.await;
    let number = |path: &str| std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
    // Before `capability::mounted`: the probes mount bpffs.
    let feature_probes = tokio::task::spawn_blocking(feature_probe::run).await.unwrap_or_default();
    Facts {
        address,
        engine,
        foreign,
        boot: boot::facts(&running),
        folders: context.paths().map(drop).map_err(|error| error.to_string()),
        kernel: capability::release(),
        share_port: capability::share_port().map_err(|error| error.to_string()),
        can_migrate: capability::can_migrate(),
        feature_probes,
        bpffs: capability::mounted("bpf"),
        is_root: nix::unistd::geteuid().is_root(),
        can_see_processes: capability::has(Capability::SysPtrace),
        can_administer_networks: capability::has(Capability::NetAdmin)
            && (capability::has(Capability::Bpf) || capability::has(Capability::SysAdmin)),
        backlog: number("/proc/sys/net/core/somaxconn"),
        files: rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
    }
}
