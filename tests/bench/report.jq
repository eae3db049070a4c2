# SPDX-License-Identifier: GPL-2.0
# Results to docs/benchmarks.md. Input: an object of all results, {file: contents}, as tests/bench/report makes it.

def median: sort | if length == 0 then null elif length % 2 == 1 then .[(length - 1) / 2]
	else (.[length / 2 - 1] + .[length / 2]) / 2 end;
def round_to(digits): if . == null then null else (. * pow(10; digits) | round) / pow(10; digits) end;
def shown(digits): if . == null then "–" else round_to(digits) | tostring end;
def percent: if . == null then "–" else "\(. * 100 | round_to(1)) %" end;

# The newest file that has a case has its say: {case: [values]}
def cases: [to_entries | sort_by(.key)[] | .value.measurements | group_by(.case)[] | {key: .[0].case, value: [.[].values]}] |
	from_entries;

def of(case; field): [.[case][]? | field | select(. != null)] | median;
def spread(case; field): [.[case][]? | field] | if length < 2 then null else (max - min) / median end;
def ratio(case; bare): of(case; .mib_s) as $case | of(bare; .mib_s) as $bare |
	if $case == null or $bare == null then null else $case / $bare end;

def named: {
	"bare": "bare (dm-linear)",
	"dmsnap-p4": "dm-snapshot, persistent, 4 KiB", "dmsnap-p64": "dm-snapshot, persistent, 64 KiB",
	"dmsnap-t4": "dm-snapshot, transient, 4 KiB", "dmsnap-t64": "dm-snapshot, transient, 64 KiB",
	"thin": "dm-thin, 64 KiB", "blksnap": "**blksnap**", "blksnap-32m": "**blksnap**, memory limit 32 MiB",
	"blksnap-4m": "**blksnap**, memory limit 4 MiB"
} as $names | (capture("^(?<name>.*?)(-(?<place>second|same|file))?$")) as $it |
	($names[$it.name] // $it.name) + (if $it.place then ", \({second: "second disk", same: "same disk", file: "file on the origin"}[$it.place])" else "" end);

def table(head): "| \(head | join(" | ")) |", "|\(head | map("---") | join("|"))|", (.[] | "| \(join(" | ")) |");

# --- the goals ---------------------------------------------------------------------------------------------------------

def verdict(value; op; goal): if value == null then "not measured" elif (if op == "≥" then value >= goal else value <= goal end)
	then "yes" else "**no**" end;
def goal(what; value; op; goal; digits; dmsnap; thin; limit):
	[what, (value | shown(digits)), "\(op) \(goal)", verdict(value; op; goal), (dmsnap | shown(digits)), (thin | shown(digits)), limit];
def ratio_goal(what; row; place; goal; limit):
	goal(what; ratio("\(row)/blksnap-\(place)"; "\(row)/bare"); "≥"; goal; 3; ratio("\(row)/dmsnap-p4-\(place)"; "\(row)/bare");
		ratio("\(row)/thin-\(place)"; "\(row)/bare"); limit);
def bytes_read(case): of(case; (.disks | [.a, .c, .d] | map(.read_bytes // 0) | add) / .bytes);
def stored_bytes(case): of(case; if (.driver.chunks_stored // 0) == 0 then null else .driver.diff_written_bytes / (.driver.chunks_stored * 4096) end);
def store_requests(case): of(case; if (.driver.chunks_stored // 0) == 0 then null else .driver.diff_writes / .driver.chunks_stored end);
def more_than(case; base): of(case; .instructions) as $case | of(base; .instructions) as $base |
	if $case == null or $base == null then null else $case - $base end;
def widest(names): [names[] as $name | of($name; .hold_us)] | if any(. == null) then null else max / min end;

def goals:
	ratio_goal("4 KiB random first overwrites, depth 32, second disk"; "rand4k-d32"; "second"; 0.48;
		"0.50: a read and a write on the origin's disk for one write"),
	ratio_goal("the same, diff in a file on the origin"; "file-rand4k-d32"; "file"; 0.46;
		"0.49: and one store request for 254 writes"),
	ratio_goal("the same, diff on another partition of the origin's disk"; "rand4k-d32"; "same"; 0.46; "0.49, as above"),
	ratio_goal("4 KiB random first overwrites, depth 1, second disk"; "rand4k-d1"; "second"; 0.48; "0.50, as at depth 32"),
	ratio_goal("1 MiB sequential first overwrites, second disk"; "seq1m"; "second"; 0.49; "0.50: read and written once"),
	ratio_goal("the same, same disk"; "seq1m"; "same"; 0.33; "0.33: read, stored and written"),
	ratio_goal("overwriting what is preserved"; "again4k-d32"; "second"; 0.99; "1: nothing is to be done"),
	goal("bytes read from the origin per byte first overwritten"; bytes_read("rand4k-d32/blksnap-second"); "≤"; 1.02; 3;
		bytes_read("rand4k-d32/dmsnap-p4-second"); bytes_read("rand4k-d32/thin-second"); "1: what is overwritten"),
	goal("bytes stored per byte preserved and stored"; stored_bytes("rand4k-d32/blksnap-second"); "≤"; 1.03; 3;
		of("rand4k-d32/dmsnap-p4-second"; .disks.b.written_bytes / .bytes); null; "1: what was read"),
	goal("bytes read, on a RAID 0 with 512 KiB chunks"; bytes_read("raid0-rand4k-d32/blksnap-second"); "≤"; 1.02; 3; null; null; "1"),
	goal("bytes stored, on a RAID 0 with 512 KiB chunks"; stored_bytes("raid0-rand4k-d32/blksnap-second"); "≤"; 1.03; 3; null; null; "1"),
	goal("store requests per 4 KiB random first overwrite, second disk"; store_requests("rand4k-d32/blksnap-second"); "≤"; 0.01; 4;
		of("rand4k-d32/dmsnap-p4-second"; .disks.b.writes / .ios); null; "1/254: the pages of one request of virtio-blk"),
	goal("the same, same disk"; store_requests("rand4k-d32/blksnap-same"); "≤"; 0.01; 4; null; null; "1/254"),
	ratio_goal("image read sequentially, untouched"; "read-seq-untouched"; "second"; 0.98; "1: the origin is read"),
	goal("image read sequentially, half overwritten, memory limit 32 MiB"; ratio("read-seq-half/blksnap-32m-second"; "read-seq-half/bare");
		"≥"; 0.9; 3; ratio("read-seq-half/dmsnap-p4-second"; "read-seq-half/bare"); ratio("read-seq-half/thin-second"; "read-seq-half/bare");
		"1: one request of 1 MiB on the origin; one for each of the 9 batches on the other disk"),
	goal("the same, memory limit 4 MiB"; ratio("read-seq-half/blksnap-4m-second"; "read-seq-half/bare"); "≥"; 0.15; 3;
		ratio("read-seq-half/dmsnap-p4-second"; "read-seq-half/bare"); ratio("read-seq-half/thin-second"; "read-seq-half/bare");
		"0.18: one request for each of the 55 batches, of 66, that have a part of a MiB"),
	goal("image read 4 KiB random, depth 32, half overwritten"; ratio("read-rand-half/blksnap-32m-second"; "read-rand-half/bare");
		"≥"; 1.9; 3; ratio("read-rand-half/dmsnap-p4-second"; "read-rand-half/bare"); ratio("read-rand-half/thin-second"; "read-rand-half/bare");
		"2: two disks, half of the reads each"),
	goal("memory of a session on 1 TiB before the first write, KiB"; of("take-size/1t"; .memory_kib); "≤"; 1024; 0; null; null; "–"),
	goal("memory per preserved 4 KiB random block, bytes"; of("map-per-block/random"; .node_bytes / .driver.chunks_preserved); "≤"; 48; 1;
		null; null; "16: a place and where it is kept"),
	goal("take: `hold_us`, 1 TiB, of a grace period"; of("take-size/1t"; .hold_us) / (of("grace-period"; .us) // infinite); "≤"; 1; 4;
		null; null; "a closed gate and its drain"),
	goal("take: `hold_us`, largest over smallest from 1 GiB to 16 TiB"; widest(["take-size/1g", "take-size/1t", "take-size/16t"]); "≤"; 2; 2;
		null; null; "1: no step depends on the size"),
	goal("take: `hold_us`, largest over smallest from 1 to 8 origins"; widest(["1", "2", "4", "8"] | map("take-origins/\(.)")); "≤"; 2; 2;
		null; null; "grows with the gates that are closed one by one"),
	goal("instructions a 4 KiB write: not tracked"; more_than("instructions/not-tracked"; "instructions/no-module"); "≤"; 200; 0;
		null; null; "some 45: the hook's trampoline"),
	goal("instructions: tracked, preserved, in memory"; more_than("instructions/preserved-in-memory"; "instructions/no-module"); "≤"; 450; 0;
		more_than("instructions/dmsnap-preserved"; "instructions/no-module"); null; "230: the prototype, which had no map"),
	goal("instructions: tracked, preserved, stored"; more_than("instructions/preserved-stored"; "instructions/no-module"); "≤"; 450; 0;
		more_than("instructions/dmsnap-preserved"; "instructions/no-module"); null; "as above"),
	goal("instructions: tracked, preserved, a map of 20000 scattered entries"; more_than("instructions/preserved-scattered"; "instructions/no-module");
		"≤"; 450; 0; null; null; "as above"),
	goal("instructions: tracked, preserved, with a change map"; more_than("instructions/change-map"; "instructions/no-module"); "≤"; 600; 0;
		null; null; "as above, and one store to memory");

# --- a table for each row ----------------------------------------------------------------------------------------------

def variants(row): [keys[] | select(startswith("\(row)/")) | .[(row | length) + 1:]] |
	sort_by(if . == "bare" then 0 elif startswith("dmsnap") then 1 elif startswith("thin") then 2 else 3 end);
def per_io(case; disk; field): of(case; (.disks[disk][field] // null) / .ios);
def row_table(row): [variants(row)[] as $variant | "\(row)/\($variant)" as $case |
	[($variant | named), (of($case; .iops) | shown(1)), (of($case; .mib_s) | shown(2)), (spread($case; .mib_s) | percent),
		(ratio($case; "\(row)/bare") | shown(3)), (per_io($case; "a"; "reads") | shown(2)), (per_io($case; "a"; "writes") | shown(2)),
		(per_io($case; "b"; "reads") | shown(2)), (per_io($case; "b"; "writes") | shown(3))]] |
	if length == 0 then empty else table(["variant", "a second", "MiB/s", "spread", "to bare", "reads, origin", "writes, origin", "reads, other", "writes, other"]) end;
def section(title; text; row): if variants(row) == [] then empty else "### \(title)", "", text, "", row_table(row), "" end;

def fsync_table: [variants("fsync")[] as $variant | "fsync/\($variant)" as $case |
	[($variant | named), (of($case; .syncs) | shown(0)),
		(of($case; (.disks.a.reads + .disks.a.writes) / .syncs) | shown(2)), (of($case; (.disks.b.reads + .disks.b.writes) / .syncs) | shown(2)),
		(of($case; (.disks.a.read_bytes + .disks.a.written_bytes) / .syncs / 1024) | shown(1))]] |
	table(["variant", "fsyncs", "requests of the origin's disk per fsync", "of the other disk", "KiB on the origin's disk per fsync"]);

def depth_table: . as $all | [(1, 2, 4, 8, 16, 32, 64, 128) as $depth | [($depth | tostring)] + [("bare", "dmsnap-p4-second", "blksnap-second") as $variant |
	"depth-\($depth)/\($variant)" as $case | $all | (of($case; .lat_us / 1000) | shown(1)), (of($case; .p99_us / 1000) | shown(1))]] |
	table(["depth", "bare, mean ms", "p99", "dm-snapshot, mean ms", "p99", "blksnap, mean ms", "p99"]);

def sessions_table: . as $all | [(1, 2, 4, 8) as $count | [($count | tostring)] + [("dmsnap-p4", "blksnap") as $variant |
	"sessions-\($count)/\($variant)" as $case | $all | (ratio($case; "sessions-\($count)/bare") | shown(3)), (per_io($case; "a"; "reads") | shown(2)),
	(per_io($case; "b"; "writes") | shown(3))]] |
	table(["sessions", "dm-snapshot, to bare", "reads of the origin a write", "stores a write", "blksnap, to bare", "reads of the origin a write", "stores a write"]);

def instructions_table: [keys[] | select(startswith("instructions/"))] as $names | [$names[] as $name |
	[$name[13:], (of($name; .instructions) | shown(0)), (more_than($name; "instructions/no-module") | shown(0)), (spread($name; .instructions) | percent)]] |
	sort_by(.[1] | tonumber) | table(["case", "instructions a write", "more than without the module", "spread of batches"]);

def take_table: [("take-size/1g", "take-size/1t", "take-size/16t", "take-origins/1", "take-origins/2", "take-origins/4", "take-origins/8") as $case |
	[$case, (of($case; .hold_us) | shown(0)), ([.[$case][]?.hold_us] | max | shown(0)), (of($case; .memory_kib) | shown(0))]] |
	table(["case", "`hold_us`, median", "largest", "memory of the session, KiB"]);

def map_table: [(("per-block", "share", "size") as $kind | keys[] | select(startswith("map-\($kind)/"))) as $case |
	[$case[4:], (of($case; .driver.chunks_preserved) | shown(0)), (of($case; .driver.map_entries) | shown(0)), (of($case; .driver.map_bytes) | shown(0)),
		(of($case; .node_bytes) | shown(0)), (of($case; if .driver.chunks_preserved > 0 then .node_bytes / .driver.chunks_preserved else null end) | shown(1))]] |
	table(["case", "preserved granules", "entries", "`map_bytes`", "all nodes, bytes", "bytes a granule"]);

# The two newest files, as two days: the ratios of all cases that both have.
def of_file: [.measurements | group_by(.case)[] | {key: .[0].case, value: [.[].values]}] | from_entries;
def repeated_table: [to_entries | sort_by(.key)[-2:][].value | {date: .runs[-1].date, cases: of_file}] |
	if length < 2 then "Not yet." else . as [$old, $new] |
		[("rand4k-d32", "rand4k-d1", "seq1m", "again4k-d32", "read-seq-untouched", "read-seq-half", "read-rand-half") as $row |
			($new.cases | variants($row))[] | select(. != "bare") as $variant | "\($row)/\(.)" as $case |
			[$old, $new | .cases | ratio($case; "\($row)/bare")] as [$before, $after] | select($before and $after) |
			["`\($case)`", ($before | shown(3)), ($after | shown(3)), ($after / $before - 1 | percent)]] |
		table(["case", "to bare, \($old.date)", "to bare, \($new.date)", "difference"]) end;

def runs_table: [to_entries | sort_by(.key)[] | .key as $file | .value | . as $all | .runs | to_entries[] |
	[.value.date, "`\(.value.commit)`", .value.kernel, .value.qemu, "\(.value.host_cpu), \(.value.host_cpus) CPUs", "\(.value.seconds) s",
		([$all.measurements[] | select(.run == 0 + 0)] | length | tostring)] | .[:6]] | unique |
	table(["date", "commit", "kernel", "QEMU", "host", "each case"]);

def report($findings):
	. as $files | cases as $all | $all |
	"<!-- Made by `make bench-report` from tests/bench/results: what is changed here is lost. -->", "",
	"# Benchmarks", "",
	"What a session costs, against the bare disk and against what Debian has already. `make bench` measures it again.", "",
	"## How it was measured", "",
	"In test machines (QEMU, emulated CPUs), one boot for all figures that are compared with each other. Disks are images in memory, throttled",
	"by QEMU to 500 requests and 50 MiB a second each, without merging of requests, so that storage and not the emulated CPU is the limit. The",
	"variants of a row alternate and are repeated; a figure is the median, *spread* the distance of the largest from the smallest,",
	"as a share of it. Rates are fio's own; requests and bytes are from `/sys/block/*/stat`. *To bare* is the ratio to a dm-linear",
	"device on the same disk. The throttle models rates and not latency: at depth 1 a real disk has a latency, which two requests one after the",
	"other pay twice, for every peer here as for blksnap. Where nothing else is said blksnap has a memory limit of 4 MiB (32 MiB in",
	"the rows of 1 MiB), so that what is preserved is stored while a case runs.", "",
	"Instructions are counted, with `-icount`, on one CPU and null_blk. The ones of a string instruction count one for each byte.", "",
	($files | runs_table), "",
	"## The goals", "",
	([goals] | table(["measure", "blksnap", "goal", "reached", "dm-snapshot 4 KiB", "dm-thin", "physical limit, and why"])), "",
	($findings | rtrimstr("\n")), "",
	"## Overwriting", "",
	"![First overwrites](benchmarks/overwrites.svg)", "",
	"Of each variant: the rate, and how many requests each disk had for one write of the application.", "",
	section("4 KiB, random, depth 32"; "First overwrites in 2 GiB. The limit is 0.50, a read and a write for one write."; "rand4k-d32"),
	section("4 KiB, random, depth 1"; "The same, one at a time."; "rand4k-d1"),
	section("1 MiB, sequential"; "First overwrites, depth 4. The limit is 0.50 with two disks, 0.33 with one; dm-thin maps whole new blocks and copies nothing."; "seq1m"),
	section("In a file of ext4, 4 KiB, random, depth 32"; "On the mounted origin; the differences in a file of the same file system."; "file-rand4k-d32"),
	section("In a file of ext4, 4 KiB, random, depth 1"; "The same, one at a time."; "file-rand4k-d1"),
	section("In a file of ext4, 1 MiB, sequential"; "The same, 1 MiB."; "file-seq1m"),
	section("What is preserved already"; "4 KiB random, depth 32, in 16 MiB that were overwritten before."; "again4k-d32"),
	section("RAID 0"; "4 KiB random first overwrites on md with 512 KiB chunks. Its disks are not those of the table."; "raid0-rand4k-d32"),
	"### fsync", "", "ext4, each 4 KiB write followed by an fsync: requests for one fsync, since rates vary.", "", fsync_table, "",
	"### Latency over depth", "", "![Latency over depth](benchmarks/depth.svg)", "", depth_table, "",
	"### Several sessions on one origin", "", "![Sessions](benchmarks/sessions.svg)", "", sessions_table, "",
	"## Reading images", "",
	"![Reads of images](benchmarks/reads.svg)", "",
	section("Sequential, untouched"; "1 MiB, depth 4."; "read-seq-untouched"),
	section("Sequential, half overwritten"; "1 MiB, depth 4, 256 MiB of which half were overwritten at random in 4 KiB, all stored."; "read-seq-half"),
	section("Random, half overwritten"; "4 KiB, depth 32, the same region."; "read-rand-half"),
	"## CPU", "", instructions_table, "",
	"## Scale", "", "Origins that hold nothing (null_blk), whatever size they have.", "",
	"A grace period of RCU took \(of("grace-period"; .us) | shown(0)) us in this machine.", "", take_table, "",
	"![The map](benchmarks/map.svg)", "",
	"`share` is of 256 MiB, overwritten at random or in order, 4 KiB at a time; `size` and `per-block` over the whole device.", "", map_table, "",
	"## Repeated on another day", "",
	"The ratios of the two newest files. Where a case of blksnap differs by far, another driver was measured: see the commits above.", "",
	($files | repeated_table), "",
	"## Files", "", "The results are in `tests/bench/results`; each case of the tables is the newest one there.";

# --- data of the plots -------------------------------------------------------------------------------------------------

def bars(rows; names): . as $all | names[] as $variant | [($variant | named | gsub("[*]"; "")), (rows[] as $row | $all |
	(ratio("\($row)/\($variant)"; "\($row)/bare") | shown(3) | if . == "–" then "NaN" else . end))] | map("\"\(.)\"") | join("\t");
def plot_data($name): cases |
	if $name == "overwrites" then "\"\"\t\"random 4 KiB, depth 32\"\t\"random 4 KiB, depth 1\"\t\"sequential 1 MiB\"",
		bars(["rand4k-d32", "rand4k-d1", "seq1m"]; ["dmsnap-p4-second", "dmsnap-t4-second", "thin-second", "blksnap-second", "dmsnap-p4-same", "dmsnap-t4-same", "thin-same", "blksnap-same"])
	elif $name == "reads" then "\"\"\t\"sequential\"\t\"random\"",
		bars(["read-seq-half", "read-rand-half"]; ["dmsnap-p4-second", "dmsnap-t4-second", "thin-second", "blksnap-32m-second", "blksnap-4m-second"])
	elif $name == "depth" then . as $all | (1, 2, 4, 8, 16, 32, 64, 128) as $depth | [$depth, (("bare", "dmsnap-p4-second", "blksnap-second") as $variant |
		$all | of("depth-\($depth)/\($variant)"; .lat_us / 1000) // "NaN")] | map(tostring) | join("\t")
	elif $name == "sessions" then . as $all | (1, 2, 4, 8) as $count | [$count, (("dmsnap-p4", "blksnap") as $variant |
		$all | ratio("sessions-\($count)/\($variant)"; "sessions-\($count)/bare") // "NaN")] | map(tostring) | join("\t")
	elif $name == "map" then . as $all | (0, 10, 25, 50, 75, 100) as $share | [$share, (("random", "sequential") as $order |
		$all | of("map-share/\($order)-\($share)"; .driver.map_bytes / 1024) // "NaN")] | map(tostring) | join("\t")
	else error("no plot \($name)") end;
