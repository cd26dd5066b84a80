//! `sameport weight` and `sameport drain`.

use std::{str::FromStr, time::Duration};

use clap::Args;
use sameport::{
    api::schema::{AppliedWeight, Replica, Traffic, replica_name},
    plan::WEIGHT_MAX,
    spec::{Service, ServiceName, Slot},
    supervisor::{Request, Selector, Weight},
};

use super::{
    context::Context,
    error::CliError,
    output,
    selector::{self, Written},
    session::Session,
};

/// Arguments of `sameport weight`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sameport weight web-3=10            a tenth of what the others get; the default is 100
  sameport weight web-1=100 web-2=0   no new connections for the second one; it keeps those it has")]
pub struct WeightArgs {
    /// The weight of each replica, relative to the others: 0 to 1000
    #[arg(required = true, value_name = "SERVICE-N=W")]
    weights: Vec<Weighted>,
}

/// Arguments of `sameport drain`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sameport drain web-2          no new connections from now on; `sameport weight web-2=100` ends that
  sameport drain --wait web-2   and wait until it has finished its connections
  sameport drain --force web-2  it is about to end and finishes its connections: end it now")]
pub struct DrainArgs {
    /// Wait until their connections have ended
    #[arg(long)]
    wait: bool,
    /// Stop them now if they are draining, as in a rollout with a long `drain`
    #[arg(long, conflicts_with = "wait")]
    force: bool,
    /// Replicas, such as web-2
    #[arg(required = true, value_name = "SERVICE-N")]
    replicas: Vec<Written>,
}

/// A weight on the command line, written as `SERVICE-N=W`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Weighted {
    replica: Written,
    weight: u32,
}

impl FromStr for Weighted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (replica, weight) = text.rsplit_once('=').ok_or("write SERVICE-N=W, such as web-2=50")?;
        let weight = weight.parse().ok().filter(|weight| *weight <= WEIGHT_MAX);
        let weight =
            weight.ok_or(format!("a weight is a whole number from 0 to {WEIGHT_MAX}; 100 is usual"))?;
        Ok(Self { replica: replica.parse()?, weight })
    }
}

/// Runs `sameport weight`.
pub async fn weight(context: &Context, args: WeightArgs) -> Result<(), CliError> {
    let written: Vec<_> = args.weights.iter().map(|weighted| weighted.replica.clone()).collect();
    let replicas = selector::resolve_replicas(context, &written).await?;
    let weights: Vec<_> = replicas
        .into_iter()
        .zip(&args.weights)
        .map(|((service, slot), weighted)| Weight { service, slot, weight: weighted.weight })
        .collect();
    let session = session(context).await?;
    if context.is_dry_run() {
        return would(&session, weights).await;
    }
    session.ask(Request::Weight(weights.clone())).await?;
    weights.iter().try_for_each(|Weight { service, slot, weight }| {
        let applied =
            AppliedWeight { replica: replica_name(service, slot), weight: *weight, connections: None };
        applied_weight(context, &applied)
    })
}

fn applied_weight(context: &Context, applied: &AppliedWeight) -> Result<(), CliError> {
    let AppliedWeight { replica, weight, connections } = applied;
    match (context.data(), connections) {
        (Some(format), _) => format.streamed(applied),
        (None, Some(open)) => output::note(&format!("{replica} gets no new connections; {open} are open")),
        (None, None) if *weight == 0 => output::note(&format!("{replica} gets no new connections")),
        (None, None) => output::note(&format!("{replica} has weight {weight}")),
    }
}

/// Runs `sameport drain`.
pub async fn drain(context: &Context, args: DrainArgs) -> Result<(), CliError> {
    let replicas = selector::resolve_replicas(context, &args.replicas).await?;
    if args.force {
        return end_drain(context, replicas).await;
    }
    let weights =
        replicas.iter().map(|(service, slot)| Weight { service: service.clone(), slot: *slot, weight: 0 });
    let session = session(context).await?;
    if context.is_dry_run() {
        return would(&session, weights.collect()).await;
    }
    session.ask(Request::Weight(weights.collect())).await?;
    for (service, slot) in &replicas {
        let mut traffic = traffic(&session, service, *slot).await?;
        let replica = replica_name(service, slot);
        let connections = Some(traffic.as_ref().map_or(0, |traffic| traffic.connections));
        applied_weight(context, &AppliedWeight { replica, weight: 0, connections })?;
        while args.wait && !traffic.as_ref().is_none_or(has_finished) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            traffic = self::traffic(&session, service, *slot).await?;
        }
    }
    Ok(())
}

/// Stops replicas now that are draining.
async fn end_drain(context: &Context, replicas: Vec<(ServiceName, Slot)>) -> Result<(), CliError> {
    let named: Vec<_> = replicas.iter().map(|(service, slot)| replica_name(service, slot)).collect();
    let selected = replicas.into_iter().map(|(service, slot)| Selector { service, slot: Some(slot) });
    let request = Request::EndDrain(selected.collect());
    let session = session(context).await?;
    let is_dry_run = context.is_dry_run();
    if is_dry_run {
        session.preview(request).await?;
    } else {
        session.ask(request).await?;
    }
    let verb = if is_dry_run { "would be stopped now" } else { "is stopped now" };
    named.iter().try_for_each(|replica| output::note(&format!("{replica} {verb}")))
}

/// Prints what `weight` would do, if the supervisor would accept it.
async fn would(session: &Session, weights: Vec<Weight>) -> Result<(), CliError> {
    session.preview(Request::Weight(weights.clone())).await?;
    weights.iter().try_for_each(|Weight { service, slot, weight }| {
        output::note(&format!("{} would have weight {weight}", replica_name(service, slot)))
    })
}

async fn session(context: &Context) -> Result<Session, CliError> {
    let name = context.project()?;
    Session::required(context, &name, "").await
}

/// The traffic of a replica; `None` if it does not run.
async fn traffic(session: &Session, service: &ServiceName, slot: Slot) -> Result<Option<Traffic>, CliError> {
    let status = session.status().await?;
    let is_meant = |replica: &Replica| replica.service == service.as_str() && replica.slot == slot.number();
    Ok(status.replicas.into_iter().find(is_meant).and_then(|replica| replica.traffic))
}

/// Whether a replica has finished its connections, including those in the accept queue, and its flows of datagrams.
fn has_finished(traffic: &Traffic) -> bool {
    let idle = traffic.udp_idle_seconds.is_none_or(|idle| idle >= Service::UDP_IDLE.as_secs());
    traffic.weight == 0 && traffic.connections == 0 && idle
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_waits_for_connections_and_datagrams() {
        let traffic = |weight, connections, udp_idle_seconds| Traffic {
            address: None,
            weight,
            desired_weight: 0,
            connections,
            connections_total: 9,
            queued: 0,
            udp_idle_seconds,
            unsteered_listeners: 0,
            ports: Vec::new(),
        };
        for (case, traffic, finished) in [
            ("nothing came", traffic(0, 0, None), true),
            ("it is not in force yet", traffic(100, 0, None), false),
            ("connections are open", traffic(0, 1, Some(5)), false),
            ("datagrams come", traffic(0, 0, Some(0)), false),
            ("one came lately", traffic(0, 0, Some(4)), false),
            ("none came for long", traffic(0, 0, Some(5)), true),
        ] {
            assert_eq!(has_finished(&traffic), finished, "{case}");
        }
    }

    #[test]
    fn a_weight_is_a_small_number_behind_a_replica() {
        let of = |text: &str| text.parse::<Weighted>().map(|w| (w.replica.to_string(), w.weight));
        assert_eq!(of("web-2=50"), Ok(("web-2".to_owned(), 50)));
        assert_eq!(of("my.web.1=0"), Ok(("my.web.1".to_owned(), 0)));
        for wrong in ["web-2", "web-2=1001", "web-2=-1", "web-2=much", "=5"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
