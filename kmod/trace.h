/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tracepoints hmm_harness:*, of the same events that go over netlink.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM hmm_harness

#if !defined(HMM_HARNESS_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define HMM_HARNESS_TRACE_H

#include <linux/tracepoint.h>

#include "internal.h"

TRACE_DEFINE_ENUM(HMM_HARNESS_REASON_UNKNOWN);
TRACE_DEFINE_ENUM(HMM_HARNESS_REASON_UNMAP);
TRACE_DEFINE_ENUM(HMM_HARNESS_REASON_CLEAR);
TRACE_DEFINE_ENUM(HMM_HARNESS_REASON_PROTECTION_VMA);
TRACE_DEFINE_ENUM(HMM_HARNESS_REASON_PROTECTION_PAGE);
TRACE_DEFINE_ENUM(HMM_HARNESS_REASON_SOFT_DIRTY);
TRACE_DEFINE_ENUM(HMM_HARNESS_REASON_RELEASE);
TRACE_DEFINE_ENUM(HMM_HARNESS_REASON_MIGRATE);
TRACE_DEFINE_ENUM(HMM_HARNESS_REASON_EXCLUSIVE);
TRACE_DEFINE_ENUM(HMM_HARNESS_OWNER_NONE);
TRACE_DEFINE_ENUM(HMM_HARNESS_OWNER_OWN);
TRACE_DEFINE_ENUM(HMM_HARNESS_OWNER_OTHER);
TRACE_DEFINE_ENUM(HMM_HARNESS_DIRECTION_TO_DEVICE);
TRACE_DEFINE_ENUM(HMM_HARNESS_DIRECTION_TO_SYSTEM);

TRACE_EVENT(invalidation,
	    TP_PROTO(const struct hh_event *event),
	    TP_ARGS(event),
	    TP_STRUCT__entry(__array(char, device, HH_NAME_SIZE)
			     __field(u64, mirror)
			     __field(int, process)
			     __field(u64, start)
			     __field(u64, end)
			     __field(u8, reason)
			     __field(u8, owner)
			     __field(u64, sequence)
			     __field(bool, blockable)
			     __field(bool, refused)),
	    TP_fast_assign(memcpy(__entry->device, event->device->name, HH_NAME_SIZE);
			   __entry->mirror = event->mirror;
			   __entry->process = event->process;
			   __entry->start = event->start;
			   __entry->end = event->end;
			   __entry->reason = event->reason;
			   __entry->owner = event->owner;
			   __entry->sequence = event->sequence;
			   __entry->blockable = event->blockable;
			   __entry->refused = event->refused;),
	    TP_printk("%s mirror=%llu process=%d %#llx-%#llx %s owner=%s sequence=%llu%s%s",
		      __entry->device, __entry->mirror, __entry->process,
		      __entry->start, __entry->end,
		      __print_symbolic(__entry->reason,
				       { HMM_HARNESS_REASON_UNKNOWN, "unknown" },
				       { HMM_HARNESS_REASON_UNMAP, "unmap" },
				       { HMM_HARNESS_REASON_CLEAR, "clear" },
				       { HMM_HARNESS_REASON_PROTECTION_VMA, "protection-vma" },
				       { HMM_HARNESS_REASON_PROTECTION_PAGE, "protection-page" },
				       { HMM_HARNESS_REASON_SOFT_DIRTY, "soft-dirty" },
				       { HMM_HARNESS_REASON_RELEASE, "release" },
				       { HMM_HARNESS_REASON_MIGRATE, "migrate" },
				       { HMM_HARNESS_REASON_EXCLUSIVE, "exclusive" }),
		      __print_symbolic(__entry->owner,
				       { HMM_HARNESS_OWNER_NONE, "none" },
				       { HMM_HARNESS_OWNER_OWN, "own" },
				       { HMM_HARNESS_OWNER_OTHER, "other" }),
		      __entry->sequence,
		      __entry->blockable ? "" : " must not sleep",
		      __entry->refused ? " refused" : "")
);

TRACE_EVENT(migration,
	    TP_PROTO(const struct hh_event *event),
	    TP_ARGS(event),
	    TP_STRUCT__entry(__array(char, device, HH_NAME_SIZE)
			     __field(u64, start)
			     __field(u64, end)
			     __field(u8, direction)
			     __field(u32, asked)
			     __field(u32, moved)),
	    TP_fast_assign(memcpy(__entry->device, event->device->name, HH_NAME_SIZE);
			   __entry->start = event->start;
			   __entry->end = event->end;
			   __entry->direction = event->direction;
			   __entry->asked = event->asked;
			   __entry->moved = event->moved;),
	    TP_printk("%s %#llx-%#llx %s asked=%u moved=%u",
		      __entry->device, __entry->start, __entry->end,
		      __print_symbolic(__entry->direction,
				       { HMM_HARNESS_DIRECTION_TO_DEVICE, "to-device" },
				       { HMM_HARNESS_DIRECTION_TO_SYSTEM, "to-system" }),
		      __entry->asked, __entry->moved)
);

TRACE_EVENT(page_free,
	    TP_PROTO(const struct hh_event *event),
	    TP_ARGS(event),
	    TP_STRUCT__entry(__array(char, device, HH_NAME_SIZE)),
	    TP_fast_assign(memcpy(__entry->device, event->device->name, HH_NAME_SIZE);),
	    TP_printk("%s", __entry->device)
);

TRACE_EVENT(cpu_fault,
	    TP_PROTO(const struct hh_event *event),
	    TP_ARGS(event),
	    TP_STRUCT__entry(__array(char, device, HH_NAME_SIZE)
			     __field(int, process)
			     __field(u64, start)),
	    TP_fast_assign(memcpy(__entry->device, event->device->name, HH_NAME_SIZE);
			   __entry->process = event->process;
			   __entry->start = event->start;),
	    TP_printk("%s process=%d %#llx", __entry->device, __entry->process,
		      __entry->start)
);

#endif /* HMM_HARNESS_TRACE_H */

#undef TRACE_INCLUDE_PATH
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_PATH .
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
