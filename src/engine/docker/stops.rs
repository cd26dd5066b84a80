//! Who has stopped a container: somebody who asked the engine for it, or the engine as it goes down, which tells the same.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bollard::{
    models::{EventMessage, EventMessageTypeEnum},
    query_parameters::EventsOptions,
};
use futures_util::{Stream, StreamExt, stream};
use jiff::Timestamp;
use tokio::sync::{Semaphore, watch};

use super::{Docker, connect, stream as events};
use crate::{
    engine::{ContainerId, EngineEvent, Labels},
    spec::ProjectName,
};

/// The number of the signal that no program takes as a request to end.
const SIGKILL: &str = "9";
/// The engine tells so soon after the end of a process that was signalled whether its stop was asked for.
const SIGNALLED: Duration = Duration::from_millis(500);
/// By then it is known why a container was stopped.
const STOPPED: Duration = Duration::from_secs(3);
/// An engine that has stopped a container answers by then, unless it is going down.
const ANSWERS: Duration = Duration::from_secs(2);
/// The end of an engine is known so soon after the next one has answered.
const AFTERTHOUGHT: Duration = Duration::from_millis(100);
/// So many stops are asked about at a time.
const ASKED_AT_ONCE: usize = 4;
/// An engine remembers 256 events.
const MOST_STOPS: usize = 1024;

/// How long after the end of a process it is known whether its stop was asked for, if an event is about such a stop.
pub(super) fn patience(action: &str, attributes: Option<&HashMap<String, String>>) -> Option<Duration> {
    let signal = || attributes?.get("signal");
    match action {
        "kill" if signal().is_none_or(|signal| signal != SIGKILL) => Some(SIGNALLED),
        "stop" => Some(STOPPED),
        _ => None,
    }
}

/// Which container was stopped, and when; none where an event is another one.
fn stop(told: &EventMessage) -> Option<(ContainerId, Timestamp)> {
    let is_stop = told.typ == Some(EventMessageTypeEnum::CONTAINER) && told.action.as_deref() == Some("stop");
    let id = told.actor.as_ref()?.id.clone()?;
    let at = Timestamp::from_nanosecond(told.time_nano?.into()).ok()?;
    is_stop.then_some((ContainerId(id), at))
}

/// Whether a sandbox was stopped. An engine that was killed stops whatever still runs when it starts again, and remembers
/// that; a sandbox is among it wherever a replica is.
fn is_of_sandbox(told: &EventMessage) -> bool {
    let attributes = told.actor.as_ref().and_then(|actor| actor.attributes.as_ref());
    attributes
        .and_then(|attributes| attributes.get("dev.sameport.role"))
        .is_some_and(|role| role == "sandbox")
}

/// Stops that an engine remembers, until `now`. It forgets them when it ends, so none of these is of an engine that went down.
fn past(project: &ProjectName, now: &str) -> EventsOptions {
    let filters = HashMap::from([
        ("label".to_owned(), vec![format!("{}={project}", Labels::PROJECT)]),
        ("type".to_owned(), vec!["container".to_owned()]),
        ("event".to_owned(), vec!["stop".to_owned()]),
    ]);
    EventsOptions { since: Some("1".to_owned()), until: events::from(now), filters: Some(filters) }
}

impl Docker {
    /// What events mean to us, until the first that is none, and which stops were asked for.
    pub(super) fn with_reasons(
        &self,
        told: impl Stream<Item = Option<EventMessage>> + Send + 'static,
    ) -> impl Stream<Item = EngineEvent> + Send + 'static {
        let (end, gone) = watch::channel(());
        let turns = Arc::new(Semaphore::new(ASKED_AT_ONCE));
        let this = self.clone();
        let told = told
            .take_while(move |event| {
                if event.is_none() {
                    end.send_replace(());
                }
                std::future::ready(event.is_some())
            })
            .filter_map(std::future::ready);
        told.flat_map_unordered(None, move |event| {
            let reason = this.clone().asked_for(stop(&event), Arc::clone(&turns), gone.clone());
            let reason = stream::once(reason).filter_map(std::future::ready);
            stream::iter(events::event(event)).chain(reason).boxed()
        })
    }

    /// Whether a stop was asked for. An engine that goes down takes no new connections first, and then stops its containers.
    async fn asked_for(
        self,
        stop: Option<(ContainerId, Timestamp)>,
        turns: Arc<Semaphore>,
        mut gone: watch::Receiver<()>,
    ) -> Option<EngineEvent> {
        let (id, at) = stop?;
        let answers = async {
            let turn = turns.acquire().await.ok()?;
            // The connections that there are would be answered to the end.
            let client = connect::client(&self.endpoint).ok()?;
            tokio::time::timeout(ANSWERS, client.ping()).await.ok()?.ok()?;
            drop(turn);
            // That can have been the next engine: the end of the one that stopped it is known then.
            tokio::time::sleep(AFTERTHOUGHT).await;
            Some(EngineEvent::Stopped { id, at, is_past: false })
        };
        tokio::select! {
            biased;
            _ = gone.changed() => None,
            answer = answers => answer,
        }
    }

    /// Stops that it remembers; none where it does not answer, or does not tell its time, or may have stopped them itself.
    pub(super) async fn past_stops(&self, project: &ProjectName, now: Option<&str>) -> Vec<EngineEvent> {
        let Some(now) = now else { return Vec::new() };
        let told = self.client.events(Some(past(project, now)));
        let told = told.filter_map(async |event| event.ok()).take(MOST_STOPS).collect::<Vec<_>>();
        let told = tokio::time::timeout(ANSWERS, told).await.unwrap_or_default();
        if told.iter().any(is_of_sandbox) {
            return Vec::new();
        }
        told.iter().filter_map(stop).map(|(id, at)| EngineEvent::Stopped { id, at, is_past: true }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_may_be_the_beginning_of_a_stop_and_sigkill_is_none() {
        let with = |signal: &str| HashMap::from([("signal".to_owned(), signal.to_owned())]);
        assert_eq!(patience("kill", Some(&with("15"))), Some(SIGNALLED));
        assert_eq!(patience("kill", Some(&with("9"))), None);
        assert_eq!(patience("kill", None), Some(SIGNALLED));
        assert_eq!(patience("stop", None), Some(STOPPED));
        assert_eq!(patience("die", None), None);
    }
}
