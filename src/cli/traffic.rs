//! `sameport weight` and `sameport drain`.

use std::{str::FromStr, time::Duration};

use clap::Args;
use sameport::{
    plan::WEIGHT_MAX,
    spec::{ServiceName, Slot},
    supervisor::{Request, Selector, Weight},
};

use super::{args::selector, context::Context, error::CliError, output, session::Session};

/// Arguments of `sameport weight`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sameport weight web.3=10            a tenth of what the others get: each has 100 unless you say so
  sameport weight web.1=100 web.2=0   nothing new for the second one; what it has goes on")]
pub struct WeightArgs {
    /// How much which replica gets of the new connections, compared with the others: 0 to 1000
    #[arg(required = true, value_name = "SERVICE.N=W")]
    weights: Vec<Weighted>,
}

/// Arguments of `sameport drain`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sameport drain web.2          no new connections for it from now on; `sameport weight web.2=100` ends that
  sameport drain --wait web.2   and wait until it has finished those that it has")]
pub struct DrainArgs {
    /// Wait until their connections have ended
    #[arg(long)]
    wait: bool,
    /// Which ones
    #[arg(required = true, value_name = "SERVICE.N", value_parser = selector)]
    replicas: Vec<Selector>,
}

/// `SERVICE.N=W`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Weighted(Weight);

impl FromStr for Weighted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (replica, weight) = text.split_once('=').ok_or("write SERVICE.N=W, such as web.2=50")?;
        let (service, slot) = one(selector(replica)?)?;
        let weight = weight.parse().ok().filter(|weight| *weight <= WEIGHT_MAX);
        let weight =
            weight.ok_or(format!("a weight is a whole number from 0 to {WEIGHT_MAX}; 100 is usual"))?;
        Ok(Self(Weight { service, slot, weight }))
    }
}

fn one(selector: Selector) -> Result<(ServiceName, Slot), String> {
    match selector {
        Selector { service, slot: Some(slot) } => Ok((service, slot)),
        Selector { service, slot: None } => Err(format!("name one replica, such as {service}.1")),
    }
}

/// Runs `sameport weight`.
pub async fn weight(context: &Context, args: WeightArgs) -> Result<(), CliError> {
    let weights: Vec<_> = args.weights.into_iter().map(|weighted| weighted.0).collect();
    let session = session(context).await?;
    if context.is_dry_run() {
        return would(&session, weights).await;
    }
    session.ask(Request::Weight(weights.clone())).await?;
    weights.iter().try_for_each(|Weight { service, slot, weight }| match weight {
        0 => output::note(&format!("{service}.{slot} gets no new connections")),
        _ => output::note(&format!("{service}.{slot} has weight {weight}")),
    })
}

/// Runs `sameport drain`.
pub async fn drain(context: &Context, args: DrainArgs) -> Result<(), CliError> {
    let usage =
        |message| CliError::Usage { message, help: "`sameport drain --help` has an example".to_owned() };
    let replicas = args
        .replicas
        .into_iter()
        .map(|replica| one(replica).map_err(usage))
        .collect::<Result<Vec<_>, _>>()?;
    let weights =
        replicas.iter().map(|(service, slot)| Weight { service: service.clone(), slot: *slot, weight: 0 });
    let session = session(context).await?;
    if context.is_dry_run() {
        return would(&session, weights.collect()).await;
    }
    session.ask(Request::Weight(weights.collect())).await?;
    for (service, slot) in &replicas {
        let mut told = false;
        loop {
            let open = open_connections(&session, service, *slot).await?;
            if !std::mem::replace(&mut told, true) {
                output::note(&format!("{service}.{slot} gets no new connections; {open} are open"))?;
            }
            if !args.wait || open == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}

/// Tells what would be, if that is possible at all.
async fn would(session: &Session, weights: Vec<Weight>) -> Result<(), CliError> {
    session.preview(Request::Weight(weights.clone())).await?;
    weights.iter().try_for_each(|Weight { service, slot, weight }| {
        output::note(&format!("{service}.{slot} would have weight {weight}"))
    })
}

async fn session(context: &Context) -> Result<Session, CliError> {
    let name = context.project()?;
    Session::running(context, &name).await?.ok_or_else(|| {
        CliError::failed(
            format!("nobody supervises the project {name}"),
            Some("`sameport up -d` begins a supervisor"),
        )
    })
}

/// Connections of a replica that it has yet to finish, also those that it has not accepted.
async fn open_connections(session: &Session, service: &ServiceName, slot: Slot) -> Result<u64, CliError> {
    let status = session.status().await?;
    let replica = status.replicas.iter().find(|replica| &replica.service == service && replica.slot == slot);
    Ok(replica.and_then(|replica| replica.traffic.as_ref()).map_or(0, |traffic| traffic.live))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_given_to_one_replica() {
        let of = |text: &str| {
            text.parse::<Weighted>().map(|w| (w.0.service.to_string(), w.0.slot.number(), w.0.weight))
        };
        assert_eq!(of("web.2=50"), Ok(("web".to_owned(), 2, 50)));
        assert_eq!(of("my.web.1=0"), Ok(("my.web".to_owned(), 1, 0)));
        for wrong in ["web.2", "web=50", "web.2=1001", "web.2=-1", "web.2=much"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
