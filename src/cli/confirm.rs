//! Replica counts on the command line: each service at most once, and a prompt where a count looks like a typing error.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Write},
};

use sameport::{
    spec::{Project, Service, ServiceName},
    supervisor::Selector,
};

use super::{args::ScaleArg, context::Context, error::CliError, replicas::Finder};

/// Up to this count there is no prompt, however few replicas run.
const CONFIRM_ABOVE: u32 = 20;
/// A count above this multiple of what runs, or of the file's count, is confirmed.
const CONFIRM_FACTOR: u32 = 10;

/// The counts by service.
///
/// # Errors
/// If a service is named twice, since either count could be meant.
pub fn counts(named: &[ScaleArg]) -> Result<BTreeMap<ServiceName, u32>, CliError> {
    let mut counts = BTreeMap::new();
    for ScaleArg { service, replicas } in named {
        if let Some(other) = counts.insert(service.clone(), *replicas) {
            return Err(CliError::Usage {
                message: format!("`{service}` is named twice: {service}={other} and {service}={replicas}"),
                help: "write each service once".to_owned(),
            });
        }
    }
    Ok(counts)
}

/// Asks for confirmation of counts that are far above what runs, if there is a terminal. Call it while Ctrl-C still
/// ends the process.
///
/// # Errors
/// If the answer is not yes, or the engine does not answer.
pub async fn large(
    context: &Context,
    counts: &BTreeMap<ServiceName, u32>,
    file: &Project,
) -> Result<(), CliError> {
    // Larger counts need no prompt: the supervisor rejects them.
    let is_askable = |replicas: u32| (CONFIRM_ABOVE + 1..=Service::MOST_REPLICAS).contains(&replicas);
    let large: Vec<_> = counts.iter().filter(|(_, replicas)| is_askable(**replicas)).collect();
    if large.is_empty() || context.is_dry_run() || !is_on_terminal() {
        return Ok(());
    }
    let docker = context.engine().await?;
    let mut finder = Finder::of(context, &file.name, Some(file));
    for (service, replicas) in large {
        let selector = Selector { service: service.clone(), slot: None };
        let found = finder.list(&docker, &[selector]).await?;
        let running = found.iter().filter(|replica| replica.running).count();
        let running = u32::try_from(running).unwrap_or(u32::MAX);
        let in_file = file.services.get(service).map_or(0, |service| service.replicas);
        let question = format!("{running} replicas of `{service}` are running. Run {replicas}? [y/N] ");
        if is_large(*replicas, running.max(in_file)) && !ask(question).await? {
            return Err(CliError::failed("not confirmed; nothing changed", None));
        }
    }
    Ok(())
}

/// Whether there is a terminal to prompt on.
pub fn is_on_terminal() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

fn is_large(replicas: u32, usual: u32) -> bool {
    replicas > CONFIRM_ABOVE && replicas > usual.saturating_mul(CONFIRM_FACTOR)
}

/// Asks a question. Returns whether the answer is yes.
///
/// # Errors
/// If the terminal cannot be written or read.
pub async fn ask(question: String) -> Result<bool, CliError> {
    let mut out = anstream::stderr();
    out.write_all(question.as_bytes()).and_then(|()| out.flush()).map_err(CliError::io("cannot ask"))?;
    let read = tokio::task::spawn_blocking(|| {
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).map(|_| answer)
    });
    let answer = match read.await {
        Ok(answer) => answer.map_err(CliError::io("cannot read the answer"))?,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    };
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unusually_large_counts_need_confirmation() {
        for (replicas, usual, wanted) in [
            (20, 0, false),
            (21, 0, true),
            (21, 2, true),
            (21, 3, false),
            (30, 3, false),
            (31, 3, true),
            (1000, 100, false),
            (1000, u32::MAX, false),
        ] {
            assert_eq!(is_large(replicas, usual), wanted, "{replicas} where {usual} are usual");
        }
    }

    #[test]
    fn each_service_has_one_count() {
        let named =
            |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<ScaleArg>>();
        let found = counts(&named(&["web=2", "jobs=0"])).unwrap();
        assert_eq!(found.into_values().collect::<Vec<_>>(), [0, 2]);
        let refused = counts(&named(&["web=2", "jobs=1", "web=3"])).unwrap_err();
        assert_eq!(refused.to_string(), "`web` is named twice: web=2 and web=3");
        assert_eq!(refused.exit_code(), 2);
    }
}
