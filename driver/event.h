/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_EVENT_H
#define BLKSNAP_EVENT_H

#include <linux/types.h>

struct image;

/**
 * event_tell() - tells the administrator something about an image
 * @image: is shown
 * @event: the value of BLKSNAP_EVENT
 *
 * Sends a "change" uevent. Context: may sleep.
 */
void event_tell(const struct image *image, const char *event);

/**
 * event_wake() - wakes who polls the attribute "state" of an image
 * @image: is shown. Context: may sleep.
 */
void event_wake(const struct image *image);

/**
 * event_state_changed() - tells the administrator about an image's state
 * @image: is shown
 * @state: the new one, which is the value of BLKSNAP_EVENT, too
 *
 * Does the same, and wakes who polls the attribute "state". Context: may sleep.
 */
void event_state_changed(const struct image *image, const char *state);

/**
 * event_tracking_lost() - tells the administrator that a tracker has ended
 * @tracker: its name
 * @origin: what it has tracked
 *
 * Sends a "change" uevent of the module, as there may be no device any more.
 * Context: may sleep.
 */
void event_tracking_lost(const char *tracker, dev_t origin);

#endif
