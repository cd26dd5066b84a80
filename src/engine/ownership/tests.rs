//! The rule, on honest containers and on what others may come up with.

use super::*;
use crate::spec::{Generation, Hooks, Slot};

const SANDBOX: &str = "box";
const HOOKS: &str = "{\"post_start\":[],\"pre_stop\":[]}";

/// A container that carries the label of the project `shop`, described from honest to hostile.
#[derive(Clone)]
struct Container {
    id: &'static str,
    name: &'static str,
    created: i64,
    labels: BTreeMap<String, String>,
    image: Option<ImageLabels>,
    host: HostSettings,
}

fn labels(role: Role) -> Labels {
    Labels {
        project: "shop".parse().unwrap(),
        pod: "web".parse().unwrap(),
        generation: Generation::from_label("0123456789ab"),
        role,
    }
}

fn role(slot: u32) -> Role {
    Role::Replica { service: "web".parse().unwrap(), slot: Slot::new(slot).unwrap() }
}

fn nonce(number: u64) -> Nonce {
    Nonce::of_number(number)
}

/// The replica in the second slot, as we make it.
fn replica() -> Container {
    Container {
        id: "replica",
        name: "shop-web-2",
        created: 10,
        labels: labels(role(2)).of_container(&Hooks::default(), &nonce(2)),
        image: Some(ImageLabels::default()),
        host: HostSettings {
            image: "app:1".to_owned(),
            network_mode: format!("container:{SANDBOX}"),
            ipc_mode: "private".to_owned(),
            ..HostSettings::default()
        },
    }
}

/// The sandbox of its pod, as we make it.
fn sandbox() -> Container {
    Container {
        id: SANDBOX,
        name: "shop-web-sandbox",
        created: 5,
        labels: labels(Role::Sandbox).of_container(&Hooks::default(), &nonce(1)),
        image: Some(ImageLabels::default()),
        host: HostSettings {
            image: "localhost/sameport-sandbox:0123456789ab".to_owned(),
            network_mode: "shop_default".to_owned(),
            ipc_mode: "shareable".to_owned(),
            read_only: true,
            cap_drop: vec!["ALL".to_owned()],
        },
    }
}

impl Container {
    /// As a release made it that knew no nonces.
    fn legacy(self) -> Self {
        let new = [Labels::LAYOUT, Labels::NONCE, Labels::HOOKS];
        let mut labels = self.labels;
        labels.retain(|key, value| !new.contains(&key.as_str()) && !value.is_empty());
        Self { labels, ..self }
    }

    fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    fn without(mut self, key: &str) -> Self {
        self.labels.remove(key);
        self
    }

    fn network(mut self, mode: &str) -> Self {
        self.host.network_mode = mode.to_owned();
        self
    }

    /// The engine has its image no more.
    fn without_image(self) -> Self {
        Self { image: None, ..self }
    }

    fn image_label(mut self, set: impl FnOnce(&mut ImageLabels)) -> Self {
        set(self.image.as_mut().unwrap());
        self
    }

    /// `docker commit` and `docker run --name`: the image has all the labels, and the rest is new.
    fn committed(self, name: &'static str) -> Self {
        Self {
            id: "foreign",
            name,
            created: 20,
            image: Some(ImageLabels::of(&self.labels)),
            host: HostSettings {
                image: "debug:1".to_owned(),
                network_mode: "default".to_owned(),
                ipc_mode: "private".to_owned(),
                ..HostSettings::default()
            },
            ..self
        }
    }
}

fn judged(all: &[Container], expected: &Expected) -> Vec<Verdict> {
    judged_later(all, expected, &Remembered::default())
}

fn judged_later(all: &[Container], expected: &Expected, remembered: &Remembered) -> Vec<Verdict> {
    let ids: Vec<_> = all.iter().map(|container| ContainerId(container.id.to_owned())).collect();
    let facts: Vec<_> = all
        .iter()
        .zip(&ids)
        .map(|(container, id)| Facts {
            id,
            name: container.name,
            created: Timestamp::from_second(container.created).unwrap(),
            labels: &container.labels,
            image: container.image.as_ref(),
            host: Claim::of(&container.labels)
                .depends_on_host(container.image.as_ref(), true)
                .then_some(&container.host),
            is_cut_off: container.host.network_mode == "container:gone",
        })
        .collect();
    judge(&"shop".parse().unwrap(), &facts, expected, remembered)
}

/// Why the last one is not ours; none, if it is.
fn reason(all: &[Container]) -> Option<ForeignReason> {
    reason_expecting(all, &Expected::default())
}

fn reason_expecting(all: &[Container], expected: &Expected) -> Option<ForeignReason> {
    match judged(all, expected).pop().unwrap() {
        Verdict::Ours { .. } => None,
        Verdict::Foreign(reason) => Some(reason),
    }
}

fn newer(layout: &str) -> Option<ForeignReason> {
    Some(ForeignReason::NewerLayout { layout: layout.to_owned() })
}

#[test]
fn what_we_make_is_ours_whatever_its_name_and_network() {
    let job = Role::PreDeploy { service: "web".parse().unwrap() };
    let job = Container { labels: labels(job).of_container(&Hooks::default(), &nonce(3)), ..replica() };
    for container in [
        replica(),
        sandbox(),
        job,
        replica().named("renamed-by-hand"),
        replica().network("container:gone"),
        // Its image is one of another container of ours.
        replica().image_label(|image| *image = ImageLabels::of(&sandbox().labels)),
        // Its image is gone, and the rest is as it should be.
        replica().without_image(),
        replica().without_image().named("shop-web-2-next"),
        sandbox().without_image(),
    ] {
        assert_eq!(reason(&[sandbox(), container.clone()]), None, "{} {:?}", container.name, container.host);
    }
}

#[test]
fn what_has_its_labels_from_its_image_is_not_ours_whatever_it_is_called_and_joins() {
    for made in [replica(), sandbox()] {
        for name in ["debug", "shop-web-3", "shop-web-3-next", "shop-web-2", "shop-web-sandbox"] {
            for network in ["default", "host", "container:box"] {
                let foreign = made.clone().committed(name).network(network);
                let verdict = reason(&[sandbox(), replica(), foreign]);
                assert_eq!(verdict, Some(ForeignReason::LabelsOfImage), "{name} {network}");
            }
        }
    }
    // Also once the image is gone, unless it is in our place.
    for (name, network) in [("debug", "container:box"), ("shop-web-2-next", "default")] {
        let foreign = replica().committed(name).network(network).without_image();
        let all = [sandbox(), foreign];
        assert_eq!(reason(&all), Some(ForeignReason::NameAndNetwork), "{name} {network}");
    }
}

#[test]
fn who_copies_the_labels_of_another_container_is_not_ours() {
    let copy = Container { id: "copy", name: "copy", created: 11, ..replica() };
    let same_second = Container { id: "z", created: 10, ..copy.clone() };
    for copy in [copy.clone(), same_second] {
        assert_eq!(reason(&[replica(), copy.clone()]), Some(ForeignReason::CopiedLabels));
        assert_eq!(reason(&[copy, replica()]), None);
    }
    // Who has the nonce from his image proves nothing about it.
    let older = Container { created: 1, ..replica().committed("debug") };
    assert_eq!(reason(&[older, replica()]), None);
    let copy = Container { id: "copy", name: "shop-web-sandbox-2", created: 6, ..sandbox() };
    assert_eq!(reason(&[sandbox(), copy]), Some(ForeignReason::CopiedLabels));
}

#[test]
fn what_is_gone_is_remembered_for_those_who_are_known_by_it() {
    let id = |id: &str| ContainerId(id.to_owned());
    let remembered = Remembered {
        sandboxes: BTreeSet::from([id(SANDBOX)]),
        nonces: BTreeMap::from([(nonce(2), id("replica"))]),
        ..Remembered::default()
    };
    let copy = Container { id: "copy", name: "copy", created: 11, ..replica() };
    let all = [copy, replica().legacy()];
    let [copy, legacy] = judged_later(&all, &Expected::default(), &remembered).try_into().unwrap();
    assert_eq!(copy, Verdict::Foreign(ForeignReason::CopiedLabels));
    assert!(matches!(legacy, Verdict::Ours { .. }), "{legacy:?}");
}

#[test]
fn what_was_made_before_there_were_nonces_is_known_by_name_and_network() {
    let job = Role::PreDeploy { service: "web".parse().unwrap() };
    let job = Container {
        labels: labels(job).of_container(&Hooks::default(), &nonce(3)),
        name: "shop-web-before",
        ..replica()
    };
    for boxed in [sandbox(), sandbox().legacy()] {
        for container in [
            replica().legacy(),
            replica().legacy().named("shop-web-2-next"),
            replica().legacy().without_image(),
            // Its sandbox was removed by hand.
            replica().legacy().network("container:gone"),
            job.clone().legacy(),
        ] {
            assert_eq!(reason(&[boxed.clone(), container.clone()]), None, "{}", container.name);
        }
    }
    assert_eq!(reason(&[sandbox().legacy()]), None);
    for container in [
        replica().legacy().named("shop-web-3"),
        replica().legacy().named("shop-web-2-next-next"),
        replica().legacy().named("web-2"),
        replica().legacy().network("default"),
        replica().legacy().network("container:gone").named("debug"),
        replica().legacy().network("container:other"),
        replica().legacy().network("host"),
        job.legacy().named("shop-web-2"),
        sandbox().legacy().named("shop-web"),
    ] {
        let verdict = reason(&[sandbox().legacy(), container.clone()]);
        assert_eq!(verdict, Some(ForeignReason::NameAndNetwork), "{} {:?}", container.name, container.host);
    }
}

#[test]
fn a_sandbox_from_before_has_settings_that_only_we_give() {
    let with = |change: fn(&mut HostSettings)| {
        let mut container = sandbox().legacy();
        change(&mut container.host);
        container
    };
    for foreign in [
        with(|host| host.image = "debug:1".to_owned()),
        with(|host| host.ipc_mode = "private".to_owned()),
        with(|host| host.read_only = false),
        with(|host| host.cap_drop.clear()),
    ] {
        assert_eq!(reason(std::slice::from_ref(&foreign)), Some(ForeignReason::NameAndNetwork));
        // What has joined a sandbox of somebody else's proves nothing by that.
        assert_eq!(reason(&[foreign, replica().legacy()]), Some(ForeignReason::NameAndNetwork));
    }
    // An image made of it carries its labels, and not its settings.
    let foreign = sandbox().legacy().committed("shop-web-sandbox");
    assert_eq!(reason(&[foreign]), Some(ForeignReason::LabelsOfImage));
}

#[test]
fn names_and_networks_of_the_file_count_for_what_is_from_before() {
    use crate::spec::{Pod, PodNetwork, Project};
    let mut project = Project::empty("shop".parse().unwrap());
    let pod = |network| Pod { network, ..Pod::default() };
    project.pods.insert("web".parse().unwrap(), pod(PodNetwork::Host));
    let on_host = Expected::of(&project);
    project.pods.insert("web".parse().unwrap(), pod(PodNetwork::Bridge));
    let on_bridge = Expected::of(&project);
    let legacy = || replica().legacy().network("host");
    assert_eq!(reason_expecting(&[legacy()], &on_host), None);
    assert_eq!(reason_expecting(&[legacy()], &on_bridge), Some(ForeignReason::NameAndNetwork));
    // Without a file only a sandbox tells.
    assert_eq!(reason(&[legacy()]), None);
    assert_eq!(reason(&[sandbox(), legacy()]), Some(ForeignReason::NameAndNetwork));

    let mut named = Expected::default();
    named.containers.insert("web".parse().unwrap(), BTreeSet::from(["front".to_owned()]));
    let first = Container { labels: labels(role(1)).to_map(), ..replica() };
    for (name, wanted) in [
        ("front", None),
        ("front-next", None),
        ("shop-web-1", None),
        ("back", Some(ForeignReason::NameAndNetwork)),
    ] {
        let all = [sandbox(), first.clone().named(name)];
        assert_eq!(reason_expecting(&all, &named), wanted, "{name}");
        // Of another slot it is not the name.
        let all = [sandbox(), replica().legacy().named("front")];
        assert_eq!(reason_expecting(&all, &named), Some(ForeignReason::NameAndNetwork));
    }
}

#[test]
fn a_layout_that_is_not_known_is_of_a_newer_release() {
    for (layout, shown) in
        [("2", "2"), ("", "unknown"), ("01", "01"), ("1 ", "unknown"), ("\u{1b}[2J", "unknown")]
    {
        let container = replica().label(Labels::LAYOUT, layout);
        for container in [
            container.clone(),
            container.clone().without(Labels::NONCE),
            container.clone().without("dev.sameport.role"),
            container.clone().without_image(),
            // Its image is of the newer release, too, and its nonce its own.
            container.image_label(|image| {
                image.layout = Some(layout.to_owned());
                image.nonce = Some(nonce(7).to_string());
            }),
        ] {
            assert_eq!(reason(&[sandbox(), container]), newer(shown), "{layout:?}");
        }
    }
    // Any image can say so.
    for container in [replica(), replica().without(Labels::NONCE)] {
        let foreign = container.label(Labels::LAYOUT, "2").committed("debug");
        assert_eq!(reason(&[foreign]), Some(ForeignReason::LabelsOfImage));
    }
}

#[test]
fn labels_that_we_would_not_write_are_incomplete() {
    for container in [
        replica().without(Labels::NONCE),
        replica().without(Labels::LAYOUT),
        replica().without("dev.sameport.role"),
        replica().without("dev.sameport.slot"),
        replica().label(Labels::NONCE, "1"),
        replica().label(Labels::NONCE, ""),
        replica().label("dev.sameport.role", "king"),
        replica().legacy().without("dev.sameport.generation"),
        // The list is of another project.
        replica().label(Labels::PROJECT, "other"),
    ] {
        let reason = reason(&[sandbox(), container.clone()]);
        assert_eq!(reason, Some(ForeignReason::IncompleteLabels), "{:?}", container.labels);
    }
}

#[test]
fn hooks_of_what_is_from_before_count_only_where_the_image_cannot_have_them() {
    let hooks = |container: Container| match judged(&[sandbox(), container], &Expected::default()).pop() {
        Some(Verdict::Ours { hooks, .. }) => hooks,
        other => panic!("{other:?}"),
    };
    let with_hooks = || replica().legacy().label(Labels::HOOKS, HOOKS);
    assert!(hooks(with_hooks()));
    assert!(hooks(with_hooks().image_label(|image| image.hooks = Some("{}".to_owned()))));
    assert!(!hooks(with_hooks().image_label(|image| image.hooks = Some(HOOKS.to_owned()))));
    assert!(!hooks(with_hooks().without_image()));
    // We have written it on what we make now, whatever the image says.
    assert!(hooks(replica().image_label(|image| image.hooks = Some(HOOKS.to_owned()))));
}

#[test]
fn networks_and_volumes_are_ours_by_the_name_in_their_labels() {
    use ForeignKind::{Network, Volume};
    let project = "shop".parse().unwrap();
    let own = Labels::of_resource(&project, "shop_data");
    let legacy = BTreeMap::from([(Labels::PROJECT.to_owned(), "shop".to_owned())]);
    let with = |key: &str, value: &str| {
        let mut labels = own.clone();
        labels.insert(key.to_owned(), value.to_owned());
        labels
    };
    let mut expected = Expected::default();
    expected.volumes.insert("cache-{{.Slot}}".to_owned());
    expected.networks.insert("front".to_owned());
    for (kind, name, labels, wanted) in [
        (Volume, "shop_data", &own, None),
        (Network, "shop_data", &own, None),
        (Volume, "copy", &own, Some(ForeignReason::CopiedLabels)),
        (Volume, "shop_copy", &own, Some(ForeignReason::CopiedLabels)),
        (Volume, "shop_data", &with(Labels::LAYOUT, "2"), newer("2")),
        (Volume, "shop_data", &legacy, None),
        (Network, "shop_default", &legacy, None),
        (Network, "shopping", &legacy, Some(ForeignReason::Name)),
        (Volume, "data", &legacy, Some(ForeignReason::Name)),
        (Volume, "cache-12", &legacy, None),
        (Volume, "cache-0", &legacy, Some(ForeignReason::Name)),
        (Volume, "cache-x", &legacy, Some(ForeignReason::Name)),
        (Network, "cache-12", &legacy, Some(ForeignReason::Name)),
        (Network, "front", &legacy, None),
        (Volume, "front", &legacy, Some(ForeignReason::Name)),
    ] {
        let reason = judge_resource(&project, kind, name, labels, &expected);
        assert_eq!(reason, wanted, "{kind:?} {name} {labels:?}");
    }
    for missing in [Labels::LAYOUT, Labels::NAME] {
        let mut labels = own.clone();
        labels.remove(missing);
        let reason = judge_resource(&project, Volume, "shop_data", &labels, &expected);
        assert_eq!(reason, Some(ForeignReason::IncompleteLabels), "without {missing}");
    }
}

#[test]
fn who_is_made_anew_by_another_program_is_ours_only_in_the_place_of_one_that_is_gone() {
    let id = |id: &str| ContainerId(id.to_owned());
    let remembered = Remembered {
        nonces: BTreeMap::from([(nonce(2), id("replica")), (nonce(1), id(SANDBOX))]),
        ..Remembered::default()
    };
    let judged = |all: &[Container], remembered: &Remembered| {
        judged_later(all, &Expected::default(), remembered).pop().unwrap()
    };
    let ours = Verdict::Ours { labels: labels(role(2)), hooks: false, recreated: true };
    let copied = Verdict::Foreign(ForeignReason::CopiedLabels);
    let anew = Container { id: "anew", created: 11, ..replica() };
    assert_eq!(judged(&[sandbox(), anew.clone()], &remembered), ours);
    // What it was stays known, also to later looks.
    let later = Remembered {
        nonces: BTreeMap::from([(nonce(2), id("anew"))]),
        recreated: BTreeSet::from([id("anew")]),
        ..Remembered::default()
    };
    assert_eq!(judged(&[sandbox(), anew.clone()], &later), ours);
    for (case, all) in [
        ("the other one is there", vec![sandbox(), replica(), anew.clone()]),
        ("it has another name", vec![sandbox(), anew.clone().named("debug")]),
        ("it is in another network", vec![sandbox(), anew.clone().network("default")]),
        ("it is no replica", vec![Container { id: "anew", created: 11, ..sandbox() }]),
    ] {
        assert_eq!(judged(&all, &remembered), copied, "{case}");
    }
    // Whoever has the nonce from his image proves nothing.
    let committed = replica().committed("shop-web-2").network("container:box");
    let of_image = Verdict::Foreign(ForeignReason::LabelsOfImage);
    assert_eq!(judged(&[sandbox(), committed], &remembered), of_image);
}
