use proptest::prelude::*;
use rstest::rstest;

use super::*;

const HIVE: &str = "{group}/year={year}/month={month}/day={day}/{period}";
const DEFAULT: &str = "{group}/{period}";

fn period(level: Level) -> Period {
    Period::of(level, "2019-09-14T17:29:59".parse().unwrap())
}

fn named(template: &str, level: Level, group: &str) -> Option<String> {
    let layout = Layout::new(template, level, "rollup/").unwrap();
    let name = layout.rollup(group, &period(level))?;
    assert!(layout.owns(&name), "{name}");
    assert_eq!(layout.key(&name), format!("rollup/{name}"));
    Some(name.to_string())
}

#[rstest]
#[case(DEFAULT, Level::Month, "web/", "web/2019-09")]
#[case(DEFAULT, Level::Day, "web/", "web/2019-09-14")]
#[case(DEFAULT, Level::Hour, "web/", "web/2019-09-14-17")]
#[case(DEFAULT, Level::TenMinutes, "web/", "web/2019-09-14-17-20")]
#[case(HIVE, Level::Day, "a/b/", "a/b/year=2019/month=09/day=14/2019-09-14")]
#[case("{year}/{month}/{group}.log", Level::Month, "web", "2019/09/web.log")]
#[case("x{year}{month}{day}T{hour}{minute}/{group}", Level::TenMinutes, "a", "x20190914T1720/a")]
#[case("{group}{period}", Level::Day, "dvn-", "dvn-2019-09-14")]
fn a_template_is_filled_in(#[case] template: &str, #[case] level: Level, #[case] group: &str, #[case] name: &str) {
    assert_eq!(named(template, level, group).as_deref(), Some(name));
}

#[rstest]
#[case(DEFAULT, "web", "web/2019-09-14")]
#[case(DEFAULT, "web/", "web/2019-09-14")]
#[case(DEFAULT, "", "2019-09-14")]
#[case(DEFAULT, "/", "2019-09-14")]
#[case(DEFAULT, "/web/", "web/2019-09-14")]
#[case(DEFAULT, "a//b///", "a/b/2019-09-14")]
#[case("x/{group}/{period}", "", "x/2019-09-14")]
#[case("x/{group}/{period}", "/web/", "x/web/2019-09-14")]
#[case("{period}/{group}", "", "2019-09-14")]
#[case("{period}/{group}", "web/", "2019-09-14/web")]
#[case("a/{group}/b/{period}", "", "a/b/2019-09-14")]
#[case("{group}{period}", "web/", "web/2019-09-14")]
#[case("{group}-{period}", "", "-2019-09-14")]
#[case(DEFAULT, "a b+%\n\té/", "a b+%\n\té/2019-09-14")]
fn a_group_never_brings_an_empty_folder(#[case] template: &str, #[case] group: &str, #[case] name: &str) {
    assert_eq!(named(template, Level::Day, group).as_deref(), Some(name));
}

#[rstest]
#[case::manifests(DEFAULT, "_manifests/")]
#[case::probe(DEFAULT, "_probe")]
#[case::behind_a_slash(DEFAULT, "//_receipts/")]
#[case::text_after_no_group("{group}_x/{period}", "")]
#[case::a_log_object("{period}/{group}", "2019-09-14-17-20-33-AB/")]
#[case::a_log_object_of_no_group("{period}{group}", "-17-20-33-AB")]
#[case::too_long(DEFAULT, LONG)]
fn a_name_kept_for_other_objects_is_no_rollups(#[case] template: &str, #[case] group: &str) {
    assert_eq!(named(template, Level::Day, group), None);
}

const LONG: &str = match std::str::from_utf8(&[b'x'; 944]) {
    Ok(text) => text,
    Err(_) => "",
};

#[test]
fn a_name_of_960_bytes_still_fits() {
    assert!(named(DEFAULT, Level::Day, &LONG[..942]).is_some());
    assert_eq!(named(DEFAULT, Level::Day, &LONG[..943]), None);
}

#[rstest]
#[case("{group", LayoutError::Braces)]
#[case("group}/{period}", LayoutError::Braces)]
#[case("{{group}/{period}", LayoutError::Braces)]
#[case("{group}}/{period}", LayoutError::Braces)]
#[case("{group}/{week}", LayoutError::Unknown("week".to_owned()))]
#[case("{}/{group}", LayoutError::Unknown(String::new()))]
#[case("{Group}/{period}", LayoutError::Unknown("Group".to_owned()))]
#[case("", LayoutError::Group)]
#[case("{period}", LayoutError::Group)]
#[case("{group}/{group}/{period}", LayoutError::Group)]
#[case("{group}", LayoutError::Periods { level: Level::Day, needed: "{year} {month} {day}" })]
#[case("{group}/{year}/{day}", LayoutError::Periods { level: Level::Day, needed: "{year} {month} {day}" })]
#[case("{group}/{period}/{hour}", LayoutError::TooFine { placeholder: "{hour}", level: Level::Day })]
#[case("/{group}/{period}", LayoutError::Slashes)]
#[case("{group}/{period}/", LayoutError::Slashes)]
#[case("{group}//{period}", LayoutError::Slashes)]
#[case("_x/{group}/{period}", LayoutError::Underscore)]
#[case("{group}/{period}-00-00-00-A", LayoutError::Name("web/1970-01-01-00-00-00-A".to_owned()))]
fn a_template_that_would_mix_up_logs_is_refused(#[case] template: &str, #[case] error: LayoutError) {
    assert_eq!(Layout::new(template, Level::Day, "").unwrap_err(), error);
}

#[rstest]
#[case(Level::Month, "{group}/{year}", false)]
#[case(Level::Month, "{group}/{year}-{month}", true)]
#[case(Level::Hour, "{group}/{year}/{month}/{day}", false)]
#[case(Level::Hour, "{group}/{year}/{month}/{day}/{hour}", true)]
#[case(Level::TenMinutes, "{group}/{year}/{month}/{day}/{hour}", false)]
#[case(Level::TenMinutes, "{group}/{year}/{month}/{day}/{hour}/{minute}", true)]
#[case(Level::TenMinutes, "{group}/{period}-00-AB", false)]
fn a_level_needs_all_its_fields(#[case] level: Level, #[case] template: &str, #[case] sound: bool) {
    assert_eq!(Layout::new(template, level, "").is_ok(), sound);
}

#[rstest]
#[case("2019-09")]
#[case("web/2019-09-14-17")]
#[case("web2019-09-14")]
#[case("web/2019-02-30")]
#[case("web/year=2019/month=09/day=14/2019-09")]
#[case("x")]
fn the_default_layout_by_day_does_not_own_another_layouts_name(#[case] name: &str) {
    let layout = Layout::new(DEFAULT, Level::Day, "").unwrap();
    assert!(!layout.owns(&RollupName::parse(name).unwrap()));
}

#[test]
fn fields_that_contradict_each_other_are_no_name_of_the_layout() {
    let layout = Layout::new(HIVE, Level::Day, "").unwrap();
    assert!(layout.owns(&RollupName::parse("year=2019/month=09/day=14/2019-09-14").unwrap()));
    assert!(!layout.owns(&RollupName::parse("year=2019/month=09/day=15/2019-09-14").unwrap()));
}

/// Any second of the years 0000 to 9999.
fn any_time() -> impl Strategy<Value = NaiveDateTime> {
    (-62_167_219_200_i64..253_402_300_800).prop_map(|s| chrono::DateTime::from_timestamp(s, 0).unwrap().naive_utc())
}

/// Groups out of what names are cut at and made of, and out of anything.
fn any_group() -> impl Strategy<Value = String> {
    "[ab/]{0,6}|[a0-9/_-]{0,12}|[a-z]{1,4}/[0-9]{4}-[0-9]{2}(-[0-9]{2})?|(?s:.){0,12}"
}

/// Texts with placeholders and stray braces in any order; most make no layout.
fn any_template() -> impl Strategy<Value = String> {
    let known = prop::sample::select(PLACEHOLDERS.map(|(placeholder, ..)| placeholder.to_owned()).to_vec());
    let piece = prop_oneof![4 => known, 2 => "[a-z0-9=_./-]{0,4}", 1 => "[{}a/_]{0,3}", 1 => "(?s:.){0,2}"];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

/// Layouts of every level: the group and what tells its periods apart in any order, with any text in between.
fn any_layout() -> impl Strategy<Value = Layout> {
    let order = (0..Level::ALL.len()).prop_flat_map(|which| {
        let fields = ["{year}", "{month}", "{day}", "{hour}", "{minute}"][..fields_of(Level::ALL[which])].to_vec();
        let names =
            [vec![vec!["{period}"]], vec![fields.clone()], vec![[&["{period}"], &fields[..]].concat()]].concat();
        let pieces = prop::sample::select(names).prop_map(|names| [&["{group}"], &names[..]].concat());
        (Just(Level::ALL[which]), pieces.prop_shuffle())
    });
    let texts = prop::collection::vec("[a-z0-9=./_-]{0,3}|/|(?s:[^{}]){0,2}", 7..8);
    let prefix = prop::sample::select(vec!["", "r/", "2019/09/14/", "é b/2019-09-14-17-20-33-AB/"]);
    (order, texts, prefix).prop_filter_map("a template that is refused", |((level, pieces), texts, prefix)| {
        let ends = texts.iter().map(String::as_str).zip(pieces.into_iter().chain([""]));
        let template: String = ends.flat_map(|(text, piece)| [text, piece]).collect();
        Layout::new(&template, level, prefix).ok()
    })
}

proptest! {
    #[test]
    fn any_template_makes_a_layout_or_is_refused_with_a_reason(template in any_template(), which in 0_usize..4) {
        match Layout::new(&template, Level::ALL[which], "") {
            Ok(layout) => prop_assert!(layout.rollup("web/", &period(Level::ALL[which])).is_some()),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn every_name_is_sound_and_owned_by_the_layout_that_made_it(
        layout in any_layout(),
        group in any_group(),
        at in any_time(),
    ) {
        if let Some(name) = layout.rollup(&group, &Period::of(layout.level(), at)) {
            prop_assert!(layout.owns(&name), "{:?}", name);
            prop_assert_eq!(RollupName::parse(name.as_str()), Some(name.clone()));
            prop_assert!(LogKey::parse("", &layout.key(&name)).is_none());
            prop_assert!(layout.key(&name).len() <= MAX_BYTES);
        }
    }

    #[test]
    fn two_periods_never_share_a_name_and_two_groups_only_where_slashes_alone_tell_them_apart(
        layout in any_layout(),
        groups in (any_group(), any_group()),
        at in any_time(),
        apart in prop_oneof![Just(0_i64), -4000_i64..4000, -200_000_i64..200_000, -90_000_000_i64..90_000_000],
    ) {
        let other = at + chrono::TimeDelta::seconds(apart);
        prop_assume!((0..=9999).contains(&other.year()));
        let [here, there] = [at, other].map(|at| Period::of(layout.level(), at));
        let (one, two) = (layout.rollup(&groups.0, &here), layout.rollup(&groups.1, &there));
        let letters = |group: &str| group.replace('/', "");
        if one.is_some() && one == two {
            prop_assert_eq!(here, there);
            prop_assert_eq!(letters(&groups.0), letters(&groups.1));
        }
        let slashed = format!("{}//", groups.0.replace('/', "//"));
        if !groups.0.is_empty() && layout.pieces.last() == Some(&Piece::Group) {
            prop_assert_eq!(layout.rollup(&slashed, &here), one);
        }
    }
}
