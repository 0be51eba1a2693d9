//! What histories met on their way: a kind of trouble that none met was not tested.

macro_rules! coverage {
    ($($name:ident),*) => {
        /// What a history met on its way.
        #[derive(Debug, Default, Clone, PartialEq, Eq)]
        pub struct Coverage { $( pub $name: u64, )* pub trace: u64 }

        impl Coverage {
            pub fn add(&mut self, other: &Coverage) { $( self.$name += other.$name; )* }

            /// Events that were never met.
            pub fn missing(&self) -> Vec<&'static str> {
                let mut missing = Vec::new();
                $( if self.$name == 0 { missing.push(stringify!($name)); } )*
                missing
            }
        }
    };
}
coverage!(
    crashes,
    power_cuts,
    kills,
    crashes_while_starting,
    clean_stops,
    acked,
    duplicates,
    out_of_sequence,
    lost_in_flight,
    torn_in_flight,
    torn_last,
    disk_full,
    busy,
    trimmed,
    delivered,
    read_again,
    large_batches,
    written_lost,
    in_part,
    duplicates_in_part,
    faulty,
    dropped,
    dropped_whole,
    sampled_out,
    buffered,
    held_in_time,
    quota_refused,
    compressed,
    conditional,
    mismatched,
    read_throttled
);
