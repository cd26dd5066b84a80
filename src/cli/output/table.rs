//! The table of replicas.

use std::io::IsTerminal;

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use jiff::Timestamp;
use sameport::{
    api::{
        convert::age,
        schema::{Replica, ReplicaState, Sharing},
    },
    control_chars::visible,
};

use super::ports;

/// The columns, each with the rank at which a narrow terminal drops it: the highest rank first, `None` never.
const COLUMNS: [(&str, Option<u8>); 11] = [
    ("REPLICA", None),
    ("STATE", None),
    ("SINCE", Some(2)),
    ("WEIGHT", Some(3)),
    ("LIVE", Some(3)),
    ("TOTAL", Some(5)),
    ("QUEUE", Some(4)),
    ("SHARING", Some(6)),
    ("CONTAINER", Some(7)),
    ("GENERATION", Some(8)),
    ("PORTS", Some(1)),
];
const MAX_RANK: u8 = 8;

/// A table without borders, as wide as its content.
pub fn plain(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.set_header(header).load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table
}

type Row = [Cell; COLUMNS.len()];

/// The table of replicas, at most as wide as the terminal. In a pipe, each replica is one line of any length.
pub fn draw(replicas: &[Replica]) -> Table {
    let now = Timestamp::now();
    let rows: Vec<_> = replicas.iter().map(|replica| row(replica, now)).collect();
    let Some(width) = terminal_width() else {
        let mut table = with_columns(&rows, MAX_RANK);
        table.set_content_arrangement(ContentArrangement::Disabled);
        return table;
    };
    let mut tables = (0..=MAX_RANK).rev().map(|most| with_columns(&rows, most));
    tables.find(|table| fits(table, width)).unwrap_or_else(|| with_columns(&rows, 0))
}

/// The table without the columns of a rank above `most`.
fn with_columns(rows: &[Row], most: u8) -> Table {
    let is_shown = |column: usize| COLUMNS.get(column).is_some_and(|(_, rank)| rank.unwrap_or(0) <= most);
    let mut table = Table::new();
    table.load_style(presets::NOTHING).enforce_styling().set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(COLUMNS.iter().enumerate().filter(|(at, _)| is_shown(*at)).map(|(_, (name, _))| *name));
    for row in rows {
        table.add_row(row.iter().enumerate().filter(|(at, _)| is_shown(*at)).map(|(_, cell)| cell.clone()));
    }
    table
}

/// Whether no cell must be wrapped. Each column has a space on both sides.
fn fits(table: &Table, width: usize) -> bool {
    table.column_max_content_widths().iter().map(|column| usize::from(*column) + 2).sum::<usize>() <= width
}

fn terminal_width() -> Option<usize> {
    let out = std::io::stdout();
    let size = out.is_terminal().then(|| rustix::termios::tcgetwinsize(out).ok()).flatten()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

fn row(replica: &Replica, now: Timestamp) -> Row {
    let [weight, live, total, queue] = traffic(replica);
    let mut name = replica.replica.clone();
    if replica.replacement {
        name.push_str(" replacement");
    }
    [
        Cell::new(visible(&name)),
        colored(Cell::new(visible(&replica.status)), level(replica)),
        Cell::new(since(replica, now)),
        Cell::new(weight),
        Cell::new(live),
        Cell::new(total),
        Cell::new(queue),
        Cell::new(match replica.sharing {
            _ if replica.orphan => "",
            Sharing::Kernel => "kernel",
            Sharing::Application => "application",
        }),
        Cell::new(replica.id.as_deref().map(short).unwrap_or_default()),
        Cell::new(replica.generation.as_deref().unwrap_or_default()),
        Cell::new(ports::compact(&replica.ports, &replica.exclusive_ports)),
    ]
}

/// The first 12 digits of a container id, as Docker shows it.
pub fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// Weight, open connections, connections in total, and connections that wait for `accept`. Empty where the kernel does
/// not count. A desired weight that is not in effect is in parentheses.
fn traffic(replica: &Replica) -> [String; 4] {
    let Some(traffic) = &replica.traffic else { return Default::default() };
    let weight = match (traffic.weight, traffic.desired_weight) {
        (weight, desired) if weight == desired => weight.to_string(),
        (weight, desired) => format!("{weight} ({desired})"),
    };
    [
        weight,
        traffic.connections.to_string(),
        traffic.connections_total.to_string(),
        traffic.queued.to_string(),
    ]
}

/// The status of a replica as a color.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StatusLevel {
    Good,
    Progressing,
    Bad,
    Inactive,
}

fn level(replica: &Replica) -> StatusLevel {
    use ReplicaState as S;
    match &replica.state {
        S::Running | S::Healthy if replica.exits > 0 => StatusLevel::Progressing,
        S::Running | S::Healthy => StatusLevel::Good,
        S::Unhealthy | S::Stuck | S::Restarting { .. } | S::Failed { .. } | S::Blocked { .. } => {
            StatusLevel::Bad
        }
        S::Completed | S::Stopped => StatusLevel::Inactive,
        _ => StatusLevel::Progressing,
    }
}

fn colored(cell: Cell, level: StatusLevel) -> Cell {
    match level {
        StatusLevel::Good => cell.fg(Color::Green),
        StatusLevel::Progressing => cell.fg(Color::Yellow),
        StatusLevel::Bad => cell.fg(Color::Red),
        StatusLevel::Inactive => cell.add_attribute(Attribute::Dim),
    }
}

fn since(replica: &Replica, now: Timestamp) -> String {
    use ReplicaState as S;
    match (&replica.state, replica.started_at) {
        (S::Running | S::Healthy | S::Unhealthy | S::Stuck | S::Starting | S::Paused, Some(at)) => {
            age(now.duration_since(at.0))
        }
        _ => String::new(),
    }
}
