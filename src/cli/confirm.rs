//! Replica counts as a user types them: each service once, and asked about where one looks like a slip of the fingers.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Write},
};

use sameport::{
    spec::{Project, Service, ServiceName},
    supervisor::Selector,
};

use super::{args::Count, context::Context, error::CliError, replicas::Finder};

/// As many replicas are started without a question, whatever runs.
const FEW: u32 = 20;
/// More than so many times what runs is asked about.
const TIMES: u32 = 10;

/// The counts by service.
///
/// # Errors
/// When a service is named twice: which of the counts is meant cannot be told.
pub fn counts(named: &[Count]) -> Result<BTreeMap<ServiceName, u32>, CliError> {
    let mut counts = BTreeMap::new();
    for Count { service, replicas } in named {
        if let Some(other) = counts.insert(service.clone(), *replicas) {
            return Err(CliError::Usage {
                message: format!("`{service}` is named twice: {service}={other} and {service}={replicas}"),
                help: "write each service once".to_owned(),
            });
        }
    }
    Ok(counts)
}

/// Asks about counts that are many times what runs, where there is a terminal to ask on. To be called while Ctrl-C still
/// ends the process.
///
/// # Errors
/// When the answer is not yes, or the engine does not answer.
pub async fn large(
    context: &Context,
    counts: &BTreeMap<ServiceName, u32>,
    file: &Project,
) -> Result<(), CliError> {
    // A supervisor refuses what is beyond that anyway.
    let is_askable = |replicas: u32| (FEW + 1..=Service::MOST_REPLICAS).contains(&replicas);
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

/// Whether somebody can be asked.
pub fn is_on_terminal() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

fn is_large(replicas: u32, usual: u32) -> bool {
    replicas > FEW && replicas > usual.saturating_mul(TIMES)
}

/// Whether the answer to a question is yes.
///
/// # Errors
/// When it cannot be asked.
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
    fn only_what_is_many_times_the_usual_is_asked_about() {
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
        let named = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Count>>();
        let found = counts(&named(&["web=2", "jobs=0"])).unwrap();
        assert_eq!(found.into_values().collect::<Vec<_>>(), [0, 2]);
        let refused = counts(&named(&["web=2", "jobs=1", "web=3"])).unwrap_err();
        assert_eq!(refused.to_string(), "`web` is named twice: web=2 and web=3");
        assert_eq!(refused.exit_code(), 2);
    }
}
