// SPDX-License-Identifier: GPL-2.0
/*
 * The tracepoints' code, which the kernel's headers make of trace.h.
 */
#define CREATE_TRACE_POINTS
#include "trace.h"
