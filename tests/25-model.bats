#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0
# Seconds a test: 30
# The administration interface against a model of it (tests/model), which is written from what is promised: random
# operations, and sequences that differed once.

load lib/common
load lib/devices

MODEL=/blksnap/tests/model

setup() {
	common_setup
}

teardown() {
	common_teardown
}

# What the operations name: a disk with two partitions, one below another device, and files.
model_devices() {
	partition "$(disk 5)" 64M 64M
	dm_linear above "$(disk 3)" 524288
	settle
	mkdir -p /mnt/test-model
	mount -t tmpfs -o size=256M model /mnt/test-model
	echo data >/mnt/test-model/full
	touch /mnt/test-model/empty
}

@test "model: random operations are answered as the model answers them" {
	local seed=${BLKSNAP_SEED:-1} said=$BATS_TEST_TMPDIR/said
	# A run that is to find something new.
	[[ ${BLKSNAP_SCALE:-1} -eq 1 || -n ${BLKSNAP_SEED:-} ]] || seed=$RANDOM
	echo "BLKSNAP_SEED=$seed"
	model_devices
	"$MODEL/run" random "$seed" "$(scaled 1500)" $(($(scaled 100) * ${BLKSNAP_SLOW:-1})) >"$said" || fail "$(cat "$said")"
	cat "$said"
	[[ $(sed -n 's/^operations=\([0-9]*\).*/\1/p' "$said") -ge $(scaled 150) ]]
	settle
}

@test "model: sequences that differed once do so no more" {
	model_devices
	"$MODEL/run" replay "$MODEL"/*.ops
	settle
}
