//! The screen of `ringway top`, and its keys.

use std::io::IsTerminal as _;
use std::time::Instant;

use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Alignment, Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Cell as Shown, Paragraph, Row, Table, TableState};

use super::super::Admin;
use super::sample::Sample;
use super::table::{Cell, Order, View, rows};
use super::{INTERVAL, take};
use crate::error::plain;

const KEYS: &str = "1 2 3 tables   < > sort column   r reverse   / filter   arrows scroll   q quit";

/// The state of the screen: two samples, and the choices of the user.
struct Screen {
    admin: Admin,
    old: Sample,
    new: Sample,
    taken: Instant,
    seconds: f64,
    view: View,
    order: Order,
    /// Whether keys are text of the filter.
    typing: bool,
    table: TableState,
    /// Why the last sample could not be taken.
    failure: Option<String>,
}

/// Shows the tables of the proxy until the user ends it.
pub(super) fn run(admin: Admin) -> Result<(), String> {
    if !std::io::stdout().is_terminal() {
        return Err("this is no terminal; write `ringway top --once`".to_owned());
    }
    let sample = take(&admin)?;
    let mut screen = Screen {
        admin,
        old: sample.clone(),
        new: sample,
        taken: Instant::now(),
        seconds: 1.0,
        view: View::Services,
        order: Order { column: 1, ascending: false, filter: String::new() },
        typing: false,
        table: TableState::default(),
        failure: None,
    };
    let mut terminal = ratatui::try_init().map_err(|error| plain(&error))?;
    let ended = loop {
        if let Err(error) = terminal.draw(|frame| screen.draw(frame)) {
            break Err(plain(&error));
        }
        let left = INTERVAL.saturating_sub(screen.taken.elapsed());
        match event::poll(left)
            .and_then(|some| if some { event::read().map(Some) } else { Ok(None) })
        {
            Ok(Some(Event::Key(key))) if key.kind != KeyEventKind::Release => {
                if screen.press(key) {
                    break Ok(());
                }
            }
            Ok(Some(_)) => {}
            Ok(None) => screen.refresh(),
            Err(error) => break Err(plain(&error)),
        }
    };
    ratatui::restore();
    ended
}

impl Screen {
    /// Takes the next sample.
    fn refresh(&mut self) {
        let seconds = self.taken.elapsed().as_secs_f64();
        self.taken = Instant::now();
        match take(&self.admin) {
            Ok(sample) => {
                self.old = std::mem::replace(&mut self.new, sample);
                self.seconds = seconds;
                self.failure = None;
            }
            Err(error) => self.failure = Some(error),
        }
    }

    /// Handles a key. Returns whether the user ends the program.
    fn press(&mut self, key: KeyEvent) -> bool {
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return true;
        }
        if self.typing {
            match key.code {
                KeyCode::Char(c) => self.order.filter.push(c),
                KeyCode::Backspace => drop(self.order.filter.pop()),
                KeyCode::Esc => {
                    self.order.filter.clear();
                    self.typing = false;
                }
                KeyCode::Enter => self.typing = false,
                _ => {}
            }
            return false;
        }
        let last = self.view.columns().len() - 1;
        match key.code {
            KeyCode::Char('q') => return true,
            KeyCode::Char(digit @ '1'..='3') => self.show(View::ALL[digit as usize - '1' as usize]),
            KeyCode::Tab => self.show(View::ALL[(self.view as usize + 1) % View::ALL.len()]),
            KeyCode::Char('>') | KeyCode::Right => {
                self.order.column = last.min(self.order.column + 1)
            }
            KeyCode::Char('<') | KeyCode::Left => {
                self.order.column = self.order.column.saturating_sub(1);
            }
            KeyCode::Char('r') => self.order.ascending ^= true,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Esc => self.order.filter.clear(),
            KeyCode::Down | KeyCode::Char('j') => self.table.select_next(),
            KeyCode::Up | KeyCode::Char('k') => self.table.select_previous(),
            _ => {}
        }
        false
    }

    fn show(&mut self, view: View) {
        self.view = view;
        self.order.column = self.order.column.min(view.columns().len() - 1);
        self.table = TableState::default();
    }

    fn draw(&mut self, frame: &mut Frame<'_>) {
        let areas =
            Layout::vertical([Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)]);
        let [head, body, foot] = areas.areas(frame.area());
        let tabs = View::ALL.iter().zip(1..).map(|(view, number)| match *view == self.view {
            true => format!("[{number} {}]", view.name()),
            false => format!(" {number} {} ", view.name()),
        });
        let title = format!("ringway top {}  {}", self.admin.address, tabs.collect::<String>());
        frame.render_widget(Paragraph::new(title), head);
        let rows = rows(self.view, (&self.old, &self.new), self.seconds, &self.order);
        frame.render_stateful_widget(table(self.view, &self.order, &rows), body, &mut self.table);
        let text = match (&self.failure, self.typing, &*self.order.filter) {
            (Some(failure), ..) => Line::styled(failure.clone(), Style::new().fg(Color::Red)),
            (None, true, filter) => Line::raw(format!("filter: {filter}_")),
            (None, false, "") => Line::raw(KEYS),
            (None, false, filter) => Line::raw(format!("filter: {filter}   {KEYS}")),
        };
        frame.render_widget(Paragraph::new(text), foot);
    }
}

fn table<'t>(view: View, order: &Order, rows: &'t [Vec<Cell>]) -> Table<'t> {
    let names = view.columns().iter().enumerate().map(|(at, name)| {
        let arrow = match (at == order.column, order.ascending) {
            (false, _) => "",
            (true, true) => " ^",
            (true, false) => " v",
        };
        aligned(at, format!("{name}{arrow}").into())
    });
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let shown = rows.iter().map(|row| {
        let cells = row.iter().enumerate().map(|(at, cell)| aligned(at, (&*cell.text).into()));
        let is_bad = row[2].number.is_some_and(|success| success < 99.0);
        let style = if is_bad { Style::new().fg(Color::Red) } else { Style::new() };
        Row::new(cells).style(style)
    });
    let count = view.columns().len();
    let widths = (0..count).map(|at| match at {
        0 => Constraint::Min(20),
        _ => Constraint::Length(10),
    });
    Table::new(shown, widths)
        .header(Row::new(names).style(bold))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
}

/// A cell: names on the left, numbers on the right.
fn aligned(column: usize, text: Text<'_>) -> Shown<'_> {
    let side = if column == 0 { Alignment::Left } else { Alignment::Right };
    Shown::from(text.alignment(side))
}
