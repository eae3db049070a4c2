# SPDX-License-Identifier: GPL-2.0
# blksnap: snapshots of live block devices. `make help` lists what can be made.

KVER ?= $(shell uname -r)
KDIR ?= /lib/modules/$(KVER)/build
# Whose headers these are: with KDIR alone it is not the kernel that runs.
installed_for = $(or $(shell sed -n 's/.* UTS_RELEASE "\(.*\)"/\1/p' "$(KDIR)/include/generated/utsrelease.h" 2>/dev/null),$(KVER))
DESTDIR ?=
# A relative one is of this directory, also for kbuild, which works in another one.
override DESTDIR := $(if $(filter-out /%,$(firstword $(DESTDIR))),$(CURDIR)/)$(DESTDIR)
PREFIX ?= /usr/local
UDEVDIR ?= /lib/udev
UNITDIR ?= /lib/systemd/system
systemctl = test ! -d /run/systemd/system || systemctl
# More arguments for `make test`, `make check` and `make bench`, such as RUN="-f overflow tests/30-io.bats".
RUN ?=
ONLY ?=
SCALE ?= 10
DIFFS ?= memory tmpfs ext4 directory beside btrfs
soak_suites := 25-model 30-stamp-engine 35-diff-file 45-image-writes 50-life 55-lessons 60-take 80-tracking 82-tracked-origins

.PHONY: help
help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

.PHONY: modules
modules: ## build the module, for the running kernel, KVER=... or KDIR=...
	@test -e "$(KDIR)/Makefile" || { \
		echo "No kernel headers in $(KDIR): install them (Debian: linux-headers-$(KVER))," \
			"boot the kernel that there are headers of, or say for which one: KVER=..." >&2; exit 1; }
	$(MAKE) -C "$(KDIR)" M="$(CURDIR)/driver" modules

.PHONY: tool
tool: ## build what the tool copies backups with
	$(MAKE) -C scripts/copy OUT="$(CURDIR)/build"

.PHONY: demo
demo: ## see it at work, in a virtual machine
	@tests/vm/demo $(RUN)

.PHONY: test
test: ## run the test suites in virtual machines, or RUN="[-f PATTERN] FILE.bats..."
	@tests/run $(RUN)

.PHONY: test-kernels
test-kernels: ## run the test suites on every supported kernel, one after the other (RUN as for test)
	@tests/kernels $(RUN)

.PHONY: soak
soak: ## run what storms, or counts rounds, SCALE times as long (default 10)
	@tests/run --scale $(SCALE) $(or $(RUN),$(addprefix tests/,$(addsuffix .bats,$(soak_suites))))

.PHONY: test-diffs
test-diffs: ## run the suite of the engine with each kind of difference storage (DIFFS="tmpfs ext4", RUN="-f storm")
	@failed=0; for kind in $(DIFFS); do echo "=== $$kind"; \
		tests/run --diff $$kind $(RUN) tests/30-stamp-engine.bats || failed=1; done; exit $$failed

.PHONY: crash
crash: ## cut the power of virtual machines, and reboot them, while sessions are active (RUN="--cuts N")
	@tests/crash/run $(RUN)

.PHONY: test-debug
test-debug: ## run the test suites on a kernel that looks for faults itself (RUN as for test)
	@tests/debug $(RUN)

.PHONY: breaches
breaches: ## break the laws of the driver on purpose, and see a test fail for each, or RUN="NAME..."
	@tests/breaches/run $(RUN)

.PHONY: check
check: ## run the static checks
	@tests/check $(RUN)

.PHONY: bench
bench: ## measure what snapshots cost, in virtual machines, or only what matches ONLY=regex
	@tests/bench/run $(RUN) $(if $(ONLY),'$(ONLY)')

.PHONY: bench-report
bench-report: ## make docs/benchmarks.md from what was measured
	@tests/bench/report

# Beside one from here, which of the two is loaded would be chance.
.PHONY: need-no-dkms
need-no-dkms:
	@! ls "$(DESTDIR)/lib/modules/$(installed_for)/updates/dkms/blksnap.ko"* >/dev/null 2>&1 || { \
		echo "DKMS has installed the module for $(installed_for): make install-tools, or first dkms remove" >&2; exit 1; }

.PHONY: install
install: need-no-dkms modules install-tools ## install module, udev rules, unit, tool and its manual page (DESTDIR, PREFIX, UDEVDIR, UNITDIR)
	$(MAKE) -C "$(KDIR)" M="$(CURDIR)/driver" INSTALL_MOD_DIR=updates \
		$(if $(DESTDIR),INSTALL_MOD_PATH="$(DESTDIR)" DEPMOD=true) modules_install
	$(if $(DESTDIR),,depmod "$(installed_for)")

.PHONY: install-tools
install-tools: tool install-scripts ## install all but the module, where that is left to DKMS
	install -m 755 build/blksnap-copy "$(DESTDIR)$(PREFIX)/lib/blksnap/blksnap-copy"
	$(if $(DESTDIR),,-udevadm control --reload)
	$(if $(DESTDIR),,-$(systemctl) daemon-reload)

# What needs no building. The unit has the place where the tool is.
.PHONY: install-scripts
install-scripts:
	install -d "$(DESTDIR)$(UDEVDIR)/rules.d" "$(DESTDIR)$(PREFIX)/sbin" "$(DESTDIR)$(PREFIX)/lib/blksnap" \
		"$(DESTDIR)$(PREFIX)/share/man/man8" "$(DESTDIR)$(UNITDIR)"
	install -m 644 udev-rules/*.rules "$(DESTDIR)$(UDEVDIR)/rules.d/"
	install -m 755 scripts/blksnap "$(DESTDIR)$(PREFIX)/sbin/blksnap"
	install -m 644 scripts/lib/*.bash "$(DESTDIR)$(PREFIX)/lib/blksnap/"
	install -m 644 docs/blksnap.8 "$(DESTDIR)$(PREFIX)/share/man/man8/"
	sed 's|/usr/local/sbin/|$(PREFIX)/sbin/|' scripts/blksnap.service >"$(DESTDIR)$(UNITDIR)/blksnap.service"
	chmod 644 "$(DESTDIR)$(UNITDIR)/blksnap.service"

.PHONY: uninstall
uninstall: ## remove what install put there
	rm -f "$(DESTDIR)/lib/modules/$(installed_for)/updates/blksnap.ko"*
	rm -f $(patsubst udev-rules/%,"$(DESTDIR)$(UDEVDIR)/rules.d/%",$(wildcard udev-rules/*.rules))
	$(if $(DESTDIR),,-$(systemctl) disable blksnap.service)
	rm -f "$(DESTDIR)$(UNITDIR)/blksnap.service"
	rm -f "$(DESTDIR)$(PREFIX)/sbin/blksnap" "$(DESTDIR)$(PREFIX)/share/man/man8/blksnap.8"
	rm -f "$(DESTDIR)$(PREFIX)/lib/blksnap/"*.bash "$(DESTDIR)$(PREFIX)/lib/blksnap/blksnap-copy"
	-rmdir "$(DESTDIR)$(PREFIX)/lib/blksnap"
	$(if $(DESTDIR),,depmod "$(installed_for)")
	$(if $(DESTDIR),,-udevadm control --reload)
	$(if $(DESTDIR),,-$(systemctl) daemon-reload)

.PHONY: clean-modules
clean-modules:
	@test ! -e "$(KDIR)/Makefile" || $(MAKE) -C "$(KDIR)" M="$(CURDIR)/driver" clean

.PHONY: clean
clean: clean-modules ## remove what was built (not the cache of test machines)
	rm -rf build
